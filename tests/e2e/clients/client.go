// Package clients drives real Kafka clients, each as an application that knows nothing of
// encryption: it hands records in and takes records out, through whatever bootstrap address
// it is given. The programs that are not Go are in the folders python, node and java; the
// console and kcat clients are run as they ship.
package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// A Client is one kind of client.
type Client struct {
	Name   string
	Parts  []deps.Part   // what it needs
	Codecs []string      // that it has
	Shape  records.Shape // the records that it can express

	// Produce sends job.Records in order and returns when all are acknowledged.
	Produce func(ctx context.Context, job Job) error

	// Consume joins job.Group, reads job.Topic from its beginning, and returns after
	// job.Count records. On an error what was read before is returned too.
	Consume func(ctx context.Context, job Job) ([]records.Record, error)
}

// A Job says what a client does. Transactions and PerSecond are for the clients that say so.
type Job struct {
	Bootstrap string
	Topic     string
	Dir       string // for the files of this run

	Records    []records.Record // to produce
	Codec      string           // none, gzip, snappy, lz4 or zstd; empty: none
	Idempotent bool
	// Transaction is how many records go into one transaction; 0: none are used. Each
	// transaction whose number modulo AbortEvery is 1 is aborted, after it was flushed.
	Transaction int
	AbortEvery  int
	PerSecond   int // pace; 0: as fast as it goes

	Group     string
	Count     int    // records to consume
	Isolation string // read_committed or read_uncommitted; empty: read_uncommitted
	Share     bool   // Group is a share group (KIP-932); Java only

	Timeout    time.Duration     // 0: a minute
	Properties map[string]string // more of the client's own configuration
}

// ErrTimeout says that a client neither finished nor reported an error in time: for one that
// should have been refused, a hang.
var ErrTimeout = errors.New("time ran out")

// All are the five clients, in the order in which they are run.
func All() []Client { return []Client{FranzGo, Kcat, Confluent, Kafkajs, Console} }

func (j *Job) timeout() time.Duration {
	if j.Timeout == 0 {
		return time.Minute
	}
	return j.Timeout
}

func (j *Job) codec() string {
	if j.Codec == "" {
		return "none"
	}
	return j.Codec
}

func (j *Job) isolation() string {
	if j.Isolation == "" {
		return "read_uncommitted"
	}
	return j.Isolation
}

// Aborted tells whether the transaction of the i-th record is one that the job aborts.
func (j *Job) Aborted(i int) bool {
	return j.Transaction > 0 && j.AbortEvery > 0 && i/j.Transaction%j.AbortEvery == 1
}

// file makes a name for a file of this run.
func (j *Job) file(kind string) (string, error) {
	f, err := os.CreateTemp(j.Dir, j.Topic+"-*."+kind)
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// program runs one of our client programs with the job as its argument.
func (j *Job) program(ctx context.Context, name string, env []string, args []string, mode, file string) error {
	argument, err := json.Marshal(map[string]any{
		"mode": mode, "bootstrap": j.Bootstrap, "topic": j.Topic, "file": file,
		"codec": j.codec(), "idempotent": j.Idempotent || j.Transaction > 0,
		"transaction": j.Transaction, "abort_every": j.AbortEvery, "per_second": j.PerSecond,
		"group": j.Group, "count": j.Count, "isolation": j.isolation(),
		"timeout_ms": j.timeout().Milliseconds(), "properties": properties(j.Properties),
	})
	if err != nil {
		return err
	}
	_, err = j.run(ctx, process.Spec{Name: name, Args: append(args, string(argument)), Env: env})
	return err
}

// run runs a program within the job's time and returns what it printed. Programs that hang
// on their own timeout are killed a little later.
func (j *Job) run(ctx context.Context, spec process.Spec) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, j.timeout()+5*time.Second)
	defer cancel()
	printed, err := process.Run(ctx, spec)
	var exit *exec.ExitError
	if ctx.Err() != nil || errors.As(err, &exit) && exit.ExitCode() == exitTimeout {
		err = fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return printed, err
}

// exitTimeout is the exit code with which our client programs report that time ran out.
const exitTimeout = 4

func properties(p map[string]string) map[string]string {
	if p == nil {
		return map[string]string{}
	}
	return p
}

// programClient is a client that is one of our programs: args starts it, the job follows.
func programClient(c Client, args func() []string, env func() []string) Client {
	c.Produce = func(ctx context.Context, j Job) error {
		path, err := j.file("in")
		if err != nil {
			return err
		}
		defer os.Remove(path)
		if err := records.WriteFile(path, j.Records); err != nil {
			return err
		}
		return j.program(ctx, c.Name, env(), args(), "produce", path)
	}
	c.Consume = func(ctx context.Context, j Job) ([]records.Record, error) {
		path, err := j.file("out")
		if err != nil {
			return nil, err
		}
		defer os.Remove(path)
		mode := "consume"
		if j.Share {
			mode = "share"
		}
		err = j.program(ctx, c.Name, env(), args(), mode, path)
		got, readErr := records.ReadFile(path)
		if err == nil {
			err = readErr
		}
		return got, err
	}
	return c
}

func source(elem ...string) string {
	return filepath.Join(append([]string{deps.Root(), "tests", "e2e", "clients"}, elem...)...)
}
