package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// Kcat is kcat (an older librdkafka). It takes lines of text with one list of headers for a
// whole run, chooses the timestamps itself, and cannot tell an empty value from a null one.
var Kcat = Client{
	Name:    "kcat",
	Parts:   []deps.Part{deps.Kcat},
	Codecs:  []string{"none", "gzip", "snappy", "lz4", "zstd"},
	Shape:   records.Shape{Headers: true, FewHeaders: true, NullKeys: true, NullValues: true},
	Produce: kcatProduce,
	Consume: kcatConsume,
}

// kcatKeyEnd stands between key and value; generated text has no such byte.
const kcatKeyEnd = "\x01"

func kcatArgs(j *Job, args ...string) []string {
	args = append([]string{filepath.Join(deps.Dir(deps.Kcat), "kcat"), "-b", j.Bootstrap}, args...)
	for k, v := range j.Properties {
		args = append(args, "-X", k+"="+v)
	}
	return args
}

func kcatProduce(ctx context.Context, j Job) error {
	for rest := j.Records; len(rest) > 0; {
		n := 1
		for n < len(rest) && sameHeaders(rest[n].Headers, rest[0].Headers) {
			n++
		}
		if err := kcatRun(ctx, &j, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// kcatRun produces records that have equal headers with one run of kcat.
func kcatRun(ctx context.Context, j *Job, run []records.Record) error {
	var lines bytes.Buffer
	for _, r := range run {
		lines.Write(r.Key) // with -Z an empty key or value is sent as null
		lines.WriteString(kcatKeyEnd)
		lines.Write(r.Value)
		lines.WriteByte('\n')
	}
	args := kcatArgs(j, "-P", "-t", j.Topic, "-p", strconv.Itoa(int(run[0].Partition)), "-K", kcatKeyEnd, "-Z",
		"-X", "compression.codec="+j.codec(), "-X", "linger.ms=20",
		"-X", "topic.message.timeout.ms="+strconv.FormatInt(j.timeout().Milliseconds(), 10))
	if j.Idempotent {
		args = append(args, "-X", "enable.idempotence=true")
	}
	for _, h := range run[0].Headers {
		args = append(args, "-H", h.Name+"="+string(h.Value))
	}
	_, err := j.run(ctx, process.Spec{Name: "kcat", Args: args, Stdin: &lines})
	return err
}

func sameHeaders(a, b []records.Header) bool {
	return slices.EqualFunc(a, b, func(x, y records.Header) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

func kcatConsume(ctx context.Context, j Job) ([]records.Record, error) {
	path, err := j.file("out")
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	out, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	_, err = j.run(ctx, process.Spec{Name: "kcat", Stdout: out, Args: kcatArgs(&j,
		"-X", "auto.offset.reset=earliest", "-X", "isolation.level="+j.isolation(), "-X", "fetch.wait.max.ms=100",
		"-c", strconv.Itoa(j.Count), "-u", "-f", `%p %o %T %K %S %h\n%k%s\n`, "-G", j.Group, j.Topic)})
	out.Close()
	printed, readErr := os.ReadFile(path)
	if readErr != nil {
		return nil, readErr
	}
	got, parseErr := parseKcat(printed)
	if err == nil {
		err = parseErr
	}
	if err == nil && len(got) != j.Count {
		err = fmt.Errorf("kcat ended without an error after %d of %d records", len(got), j.Count)
	}
	return got, err
}

// parseKcat reads what kcatConsume's format makes kcat print: one line of numbers and
// headers, then key and value by their lengths (-1 for null), then a line end.
func parseKcat(b []byte) ([]records.Record, error) {
	var all []records.Record
	for len(b) > 0 {
		var r records.Record
		var key, value int
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		fields := strings.SplitN(string(line), " ", 6)
		if !ok || len(fields) != 6 {
			return all, fmt.Errorf("kcat printed %q", line)
		}
		if _, err := fmt.Sscan(strings.Join(fields[:5], " "), &r.Partition, &r.Offset, &r.Timestamp, &key, &value); err != nil {
			return all, fmt.Errorf("kcat printed %q: %w", line, err)
		}
		if len(rest) < max(key, 0)+max(value, 0)+1 {
			return all, fmt.Errorf("kcat's last record is cut: %q", line)
		}
		if fields[5] != "" {
			for _, h := range strings.Split(fields[5], ",") {
				name, v, _ := strings.Cut(h, "=")
				r.Headers = append(r.Headers, records.Header{Name: name, Value: []byte(v)})
			}
		}
		if key >= 0 {
			r.Key, rest = rest[:key:key], rest[key:]
		}
		if value >= 0 {
			r.Value, rest = rest[:value:value], rest[value:]
		}
		b = rest[1:]
		all = append(all, r)
	}
	return all, nil
}
