package envoy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// binaries are the Envoys that the configuration must suit, by version. The first must be there
// where everything is tested.
func binaries(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for i, version := range []string{"1.40.0", "1.39.3", "1.37.0"} {
		path := filepath.Join(artifact.Root(), "build", "deps", "envoy-"+version, "envoy")
		if _, err := os.Stat(path); err == nil {
			found[version] = path
		} else if i == 0 && os.Getenv("CI") == "true" {
			t.Fatalf("%v (hint: make deps-envoy)", err)
		}
	}
	if len(found) == 0 {
		t.Skip("no Envoy in build/deps (hint: make deps-envoy)")
	}
	return found
}

// put writes a configuration, of s with the module that is there, to a file of its own.
func put(t *testing.T, s Spec, wasm []byte) string {
	t.Helper()
	dir := t.TempDir()
	module := filepath.Join(dir, "e2ee.wasm")
	if err := os.WriteFile(module, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.Module, err = ReadModule(t.Context(), module, wasm); err != nil {
		t.Fatal(err)
	}
	text, err := Write(s)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEveryEnvoyAcceptsWhatIsWritten(t *testing.T) {
	proof := certify(t, "broker-1.example.com")
	secure := fmt.Sprintf("tls: {enabled: true, ca: %s, cert: %s, key: %s}\nclient_tls: {cert: %s, key: %s}\n", proof.CA, proof.Cert, proof.Key, proof.Cert, proof.Key)
	for version, binary := range binaries(t) {
		if says, err := Version(t.Context(), binary); err != nil || says != version {
			t.Errorf("Envoy %s says that it is %q: %v", version, says, err)
		}
		for name, path := range map[string]string{
			"one broker":            put(t, spec(t, "bootstrap: [127.0.0.1:9092]\nagent: {listen: '127.0.0.1:9465', pairing_key_file: pairing.key}\n", 1), leastModule()),
			"three brokers and TLS": put(t, spec(t, "bootstrap: [localhost:9092, 127.0.0.1:9093]\nlisten: '[::1]:19092'\n"+secure+unixAgent, 3), leastModule()),
		} {
			if err := Validate(t.Context(), binary, path); err != nil {
				t.Errorf("Envoy %s, %s: %v", version, name, err)
			}
		}
		bad := put(t, spec(t, "bootstrap: [localhost:9092]\n"+unixAgent, 1), bytes.Replace(leastModule(), []byte("0_2_1"), []byte("9_9_9"), 1))
		if err := Validate(t.Context(), binary, bad); err == nil || !strings.Contains(err.Error(), "wasm-e2ee") {
			t.Errorf("Envoy %s, a module of another ABI: %v", version, err)
		}
	}
}

// TestEnvoyLoadsTheModule compiles all of e2ee.wasm, which takes Envoy its time.
func TestEnvoyLoadsTheModule(t *testing.T) {
	binary, ok := binaries(t)["1.40.0"]
	if !ok {
		t.Skip("no Envoy 1.40.0 in build/deps (hint: make deps-envoy)")
	}
	path := put(t, spec(t, "bootstrap: [localhost:9092]\n"+unixAgent, 1), artifact.Module(t))
	if err := Validate(t.Context(), binary, path); err != nil {
		t.Error(err)
	}
}
