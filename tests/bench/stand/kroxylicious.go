package stand

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
)

// Kroxylicious is the peer's part of build/deps.
const Kroxylicious deps.Part = "kroxylicious"

// A Peer is a running Kroxylicious: one process, and a virtual cluster of each kind.
type Peer struct {
	*process.Process
	Encrypting string // bootstrap of the cluster whose records it encrypts, each with a data key of its in-memory KMS
	Passing    string // bootstrap of the cluster that has no filter
}

// configuration is Kroxylicious' own, with its defaults. Each gateway takes the port of its
// bootstrap address and those after it, one for each broker.
const configuration = `
filterDefinitions:
- name: encrypt
  type: RecordEncryption
  config:
    kms: IntegrationTestingKmsService
    kmsConfig:
      name: bench
    selector: TemplateKekSelector
    selectorConfig:
      template: bench
virtualClusters:
- name: encrypting
  targetCluster:
    bootstrapServers: %[1]s
  gateways:
  - name: default
    portIdentifiesNode:
      bootstrapAddress: %[2]s
      nodeStartPort: %[3]d
      nodeIdRanges: [{name: all, start: 1, end: 1}]
  filters: [encrypt]
- name: passing
  targetCluster:
    bootstrapServers: %[1]s
  gateways:
  - name: default
    portIdentifiesNode:
      bootstrapAddress: %[4]s
      nodeStartPort: %[5]d
      nodeIdRanges: [{name: all, start: 1, end: 1}]
`

// StartKroxylicious runs the peer in front of a broker whose node id is 1, on the JVM's
// defaults: its own compiler and collector, unlike the brokers of tests.
func StartKroxylicious(ctx context.Context, dir, bootstrap string) (*Peer, error) {
	if !deps.Have(Kroxylicious) {
		return nil, errors.New("Kroxylicious has not been fetched\nhint: make deps-kroxylicious")
	}
	ports, err := broker.FreePorts(4)
	if err != nil {
		return nil, err
	}
	peer := &Peer{Encrypting: fmt.Sprintf("127.0.0.1:%d", ports[0]), Passing: fmt.Sprintf("127.0.0.1:%d", ports[2])}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "kroxylicious.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, configuration, bootstrap, peer.Encrypting, ports[1], peer.Passing, ports[3]), 0o644); err != nil {
		return nil, err
	}
	jars := deps.Dir(Kroxylicious)
	peer.Process, err = process.Start(process.Spec{Name: "kroxylicious", Dir: dir,
		Args: []string{"java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars + ":" + filepath.Join(jars, "*"), "Launcher", file}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := peer.WaitFor(ctx, "Kroxylicious started"); err != nil {
		peer.Kill()
		return nil, err
	}
	return peer, nil
}
