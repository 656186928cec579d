# build/e2ee.wasm: the module, by the plain Go toolchain, the same bytes from any folder.

WASM_FLAGS := -buildmode=c-shared -trimpath -buildvcs=false -ldflags='-s -w -buildid='

build/e2ee.wasm: $(shell find module abi -name '*.go' -not -name '*_test.go') go.mod go.sum
	@mkdir -p build
	GOOS=wasip1 GOARCH=wasm go build $(WASM_FLAGS) -o $@ ./module
