package envoy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// A Module is e2ee.wasm as Envoy loads it.
type Module struct {
	Path         string   // of the file, absolute
	Sum          [32]byte // SHA-256
	capabilities []string // functions that it has from the host and gives to it, sorted
}

// callback begins the name of each function that a Proxy-Wasm host calls.
const callback = "proxy_on_"

// ReadModule looks at the module's bytes, which Envoy will read from path.
func ReadModule(ctx context.Context, path string, wasm []byte) (Module, error) {
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter()) // to read it, not to run it
	defer runtime.Close(ctx)
	compiled, err := runtime.CompileModule(ctx, wasm)
	if err != nil {
		return Module{}, fmt.Errorf("module %s: %w\nhint: `make build` makes e2ee.wasm", path, err)
	}
	names := map[string]bool{}
	for _, f := range compiled.ImportedFunctions() {
		_, name, _ := f.Import()
		names[name] = true
	}
	callbacks := 0
	for name := range compiled.ExportedFunctions() {
		if strings.HasPrefix(name, callback) {
			names[name] = true
			callbacks++
		}
	}
	if callbacks == 0 {
		return Module{}, fmt.Errorf("module %s has none of the functions that Envoy calls (%s…)\nhint: is it the e2ee.wasm of this version?", path, callback)
	}
	return Module{path, sha256.Sum256(wasm), slices.Sorted(maps.Keys(names))}, nil
}

// filter is the module in Envoy's words.
func (s *Spec) filter(p *places) (object, error) {
	conf, err := s.plugin(p)
	if err != nil {
		return nil, err
	}
	// What the module has and nothing more: should it ever ask for something else, Envoy does
	// not give it.
	allowed := object{}
	for _, name := range s.Module.capabilities {
		allowed = append(allowed, obj(name, object{})...)
	}
	restriction := obj("allowed_capabilities", allowed)
	var ofVM, ofPlugin any = nil, restriction
	if restrictsVM(s.Envoy) {
		ofVM, ofPlugin = restriction, nil
	}
	digest := sha256.Sum256([]byte(conf))
	return typed("envoy.extensions.filters.network.wasm.v3.Wasm", "config", obj(
		"name", "wasm-e2ee",
		"root_id", "wasm-e2ee",
		"failure_policy", "FAIL_RELOAD",
		"reload_config", obj("backoff", obj("base_interval", "1s")),
		"vm_config", obj(
			// What workers share must not meet what another node's do. And a virtual machine
			// takes one configuration: a changed one that comes to a running Envoy needs another.
			"vm_id", fmt.Sprintf("wasm-e2ee-%v-%x", s.Node.Node, digest[:4]),
			"runtime", "envoy.wasm.runtime.v8",
			"code", obj("local", obj("filename", s.Module.Path)),
			"environment_variables", obj("host_env_keys", []string{plugin.KeyVariable}),
			"capability_restriction_config", ofVM,
		),
		"configuration", typed("google.protobuf.StringValue", "value", conf),
		"capability_restriction_config", ofPlugin,
	)), nil
}

// restrictsVM reports whether this version of Envoy has the restriction with the virtual machine.
// Those before 1.40 know it only with the plugin, where 1.40 warns that it will go.
func restrictsVM(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return err == nil && (major > 1 || minor >= 40)
}

// plugin is the module's own configuration.
func (s *Spec) plugin(p *places) (string, error) {
	conf := plugin.Config{
		Realm:         s.Node.Realm.String(),
		AgentCluster:  agentCluster,
		Brokers:       p.addresses(),
		Policy:        plugin.Policy{Plain: s.File.Policy.Plain, OnUnreadable: string(s.File.Policy.OnUnreadable)},
		ProduceWaitMs: uint64(s.File.ProduceWait.Milliseconds()),
	}
	text, err := conf.Append(nil)
	if err == nil {
		_, err = plugin.Parse(text)
	}
	return string(text) + "\n", err
}
