package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// Console is Kafka's console producer and consumer, lines of text. They choose timestamps
// and, by the key, the partition.
var Console = Client{
	Name:   "console",
	Parts:  []deps.Part{deps.Kafka},
	Codecs: []string{"none", "gzip", "snappy", "lz4", "zstd"},
	Shape: records.Shape{Headers: true, NullHeaders: true, NullKeys: true, EmptyKeys: true,
		NullValues: true, EmptyValues: true},
	Produce: consoleProduce,
	Consume: consoleConsume,
}

// Separators and the text that stands for null; generated text contains none of them.
const (
	consoleField  = "\x01" // between the parts of a record
	consoleHeader = "\x02" // between headers
	consoleName   = "\x03" // between a header's name and value
	consoleNull   = "\x04"
)

func console(class string) []string {
	return broker.Java("-Xmx256m", source("java", "log4j2.properties"), class)
}

func consoleProduce(ctx context.Context, j Job) error {
	var lines bytes.Buffer
	for _, r := range j.Records {
		var headers []string
		for _, h := range r.Headers {
			headers = append(headers, h.Name+consoleName+orNull(h.Value))
		}
		if headers == nil {
			headers = []string{consoleNull}
		}
		lines.WriteString(strings.Join(headers, consoleHeader) + consoleField + orNull(r.Key) + consoleField + orNull(r.Value) + "\n")
	}
	args := append(console("org.apache.kafka.tools.ConsoleProducer"),
		"--bootstrap-server", j.Bootstrap, "--topic", j.Topic, "--compression-codec", j.codec(),
		"--reader-property", "parse.key=true", "--reader-property", "parse.headers=true",
		"--reader-property", "key.separator="+consoleField, "--reader-property", "headers.delimiter="+consoleField,
		"--reader-property", "headers.separator="+consoleHeader, "--reader-property", "headers.key.separator="+consoleName,
		"--reader-property", "null.marker="+consoleNull,
		"--command-property", "linger.ms=20",
		"--command-property", "delivery.timeout.ms="+strconv.FormatInt(j.timeout().Milliseconds(), 10),
		"--command-property", "request.timeout.ms="+strconv.FormatInt(min(j.timeout().Milliseconds()/2, 30_000), 10))
	for k, v := range j.Properties {
		args = append(args, "--command-property", k+"="+v)
	}
	printed, err := j.run(ctx, process.Spec{Name: "console producer", Args: args, Stdin: &lines})
	if err == nil && strings.Contains(printed, "ERROR") {
		// It reports a record that failed in its log, and exits with 0 all the same.
		err = fmt.Errorf("console producer: %.2000s", printed)
	}
	return err
}

func consoleConsume(ctx context.Context, j Job) ([]records.Record, error) {
	path, err := j.file("out")
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	out, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	args := append(console("org.apache.kafka.tools.consumer.ConsoleConsumer"),
		"--bootstrap-server", j.Bootstrap, "--topic", j.Topic, "--group", j.Group, "--from-beginning",
		"--max-messages", strconv.Itoa(j.Count), "--isolation-level", j.isolation(),
		"--timeout-ms", strconv.FormatInt(j.timeout().Milliseconds(), 10))
	for _, p := range []string{"timestamp", "partition", "offset", "headers", "key"} {
		args = append(args, "--formatter-property", "print."+p+"=true")
	}
	args = append(args, "--formatter-property", "key.separator="+consoleField,
		"--formatter-property", "headers.separator="+consoleHeader, "--formatter-property", "null.literal="+consoleNull)
	for k, v := range j.Properties {
		args = append(args, "--command-property", k+"="+v)
	}
	complaint, err := j.run(ctx, process.Spec{Name: "console consumer", Args: args, Stdout: out})
	out.Close()
	if err == nil && strings.Contains(complaint, "ERROR") && !strings.Contains(complaint, "TimeoutException") {
		// It reports what went wrong in its log, and exits with 0 all the same.
		err = fmt.Errorf("console consumer: %.2000s", complaint)
	}
	printed, readErr := os.ReadFile(path)
	if readErr != nil {
		return nil, readErr
	}
	got, parseErr := parseConsole(printed)
	if err == nil {
		err = parseErr
	}
	if err == nil && len(got) != j.Count {
		err = fmt.Errorf("%w: console consumer ended after %d of %d records", ErrTimeout, len(got), j.Count)
	}
	return got, err
}

// parseConsole reads lines of time, partition, offset, headers, key and value.
func parseConsole(b []byte) ([]records.Record, error) {
	var all []records.Record
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		f := strings.SplitN(string(line), consoleField, 6)
		if !ok || len(f) != 6 {
			return all, fmt.Errorf("console consumer printed %.200q", line)
		}
		var r records.Record
		if _, err := fmt.Sscanf(strings.Join(f[:3], " "), "CreateTime:%d Partition:%d Offset:%d", &r.Timestamp, &r.Partition, &r.Offset); err != nil {
			return all, fmt.Errorf("console consumer printed %.200q: %w", line, err)
		}
		if f[3] != "NO_HEADERS" {
			for _, h := range strings.Split(f[3], consoleHeader) {
				name, v, _ := strings.Cut(h, ":")
				r.Headers = append(r.Headers, records.Header{Name: name, Value: fromNull(v)})
			}
		}
		r.Key, r.Value = fromNull(f[4]), fromNull(f[5])
		all = append(all, r)
		b = rest
	}
	return all, nil
}

func orNull(b []byte) string {
	if b == nil {
		return consoleNull
	}
	return string(b)
}

func fromNull(s string) []byte {
	if s == consoleNull {
		return nil
	}
	return []byte(s)
}
