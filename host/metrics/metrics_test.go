package metrics

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/exposure"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/lease"
	"github.com/wasm-e2ee/wasm-e2ee/host/proxy"
)

// busy is a source of a node that has done a little of everything. Its functions read now.
func busy(at time.Time) Source {
	return Source{
		Agent: func() agent.Snapshot {
			return agent.Snapshot{Ready: true, Contact: at, NotAfter: at.Add(time.Hour), Period: 570 * time.Second,
				Held:   []keyring.KidView{{Topic: "orders", Start: at.Add(-time.Minute)}, {Topic: "orders", Start: at.Add(-time.Hour)}},
				Alarms: map[agent.Alarm]uint64{agent.AlarmRollback: 2}}
		},
		Plane: &Plane{Module: func() (c [abi.NumCounters]uint64) {
			for i := range c {
				c[i] = uint64(100 + i)
			}
			return c
		}, Proxy: func() proxy.Stats {
			return proxy.Stats{Open: 3, Sealed: 7, SealRefused: map[abi.Status]uint64{abi.StatusNoRecipient: 4}, OpenRefused: map[abi.Status]uint64{abi.StatusErased: 5}, Skipped: map[abi.Status]uint64{abi.StatusHistory: 6}}
		}},
		Exposure: func(asOf time.Time) (*exposure.Report, error) {
			return exposure.Of(keyring.View{}, keyring.DefaultTiming(), nil, asOf)
		},
		Draining: func() bool { return false },
	}
}

func listen(t *testing.T, log io.Writer) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *Server, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestAScrapeSaysWhatThePartsHaveDone(t *testing.T) {
	s := listen(t, io.Discard)
	s.Serve(busy(time.Now()))
	code, text := get(t, s, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, text)
	}
	lines := strings.Split(text, "\n")
	for _, want := range []string{
		"wasm_e2ee_sealed_batches_total 100", "wasm_e2ee_sealed_records_total 101", "wasm_e2ee_sealed_bytes_total 102",
		"wasm_e2ee_opened_batches_total 103", "wasm_e2ee_opened_records_total 104", "wasm_e2ee_opened_bytes_total 105",
		"wasm_e2ee_passed_batches_total 106", "wasm_e2ee_refused_batches_total 107",
		"wasm_e2ee_installed_leases 108", "wasm_e2ee_installed_roots 109", "wasm_e2ee_erased_keys_total 110",
		`wasm_e2ee_refusals_total{direction="seal",status="no_recipient"} 4`, `wasm_e2ee_refusals_total{direction="open",status="erased"} 5`,
		`wasm_e2ee_refusals_total{direction="open",status="replayed"} 0`, `wasm_e2ee_partitions_total{direction="seal"} 7`,
		`wasm_e2ee_skipped_batches_total{status="history"} 6`, `wasm_e2ee_alarms_total{kind="rollback"} 2`, `wasm_e2ee_alarms_total{kind="replay"} 0`,
		"wasm_e2ee_roots 2", "wasm_e2ee_open_connections 3", "wasm_e2ee_ready 1", "wasm_e2ee_exposure_window_seconds 570",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
	for _, want := range []string{"wasm_e2ee_oldest_root_age_seconds 3600", "wasm_e2ee_build_info{", "go_goroutines ", "process_"} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("no line begins with %s", want)
		}
	}
	if strings.Contains(text, "orders") {
		t.Error("a topic's name is in a metric")
	}
	// One more status or alarm is one more series; nothing that grows with use is.
	if n := strings.Count(text, "\n"+prefix); n > 150 {
		t.Errorf("%d series of ours", n)
	}
}

// TestAPartThatIsNotThereHasNoMetrics scrapes an agent whose data planes are elsewhere.
func TestAPartThatIsNotThereHasNoMetrics(t *testing.T) {
	s := listen(t, io.Discard)
	source := busy(time.Now())
	source.Plane = nil
	source.Channel = func() lease.Stats {
		return lease.Stats{Open: 2, Begun: 3, HandshakesRefused: 4, CallsRefused: 5,
			Served:  map[channel.Op]uint64{channel.OpRoot: 6},
			Refused: map[channel.Op]map[abi.Status]uint64{channel.OpRoot: {abi.StatusPending: 7}}}
	}
	s.Serve(source)
	_, text := get(t, s, "/metrics")
	for _, want := range []string{"channels 2", "channels_begun_total 3", "channel_handshakes_refused_total 4", "channel_calls_refused_total 5",
		`channel_requests_total{op="root"} 6`, `channel_requests_total{op="renew"} 0`,
		`channel_refusals_total{op="root",status="pending"} 7`, `channel_refusals_total{op="opened",status="replayed"} 0`, "roots 2", "ready 1"} {
		if !strings.Contains(text, "\n"+prefix+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	for _, f := range planeFamilies() {
		if strings.Contains(text, "\n"+f.name) {
			t.Errorf("%s, and there is no data plane", f.name)
		}
	}
	if n := strings.Count(text, "\n"+prefix); n > 150 {
		t.Errorf("%d series of ours", n)
	}
}

// TestTheTableOfMetricsIsTheCode holds the contract in OPERATING.md against the families, and
// each value of a label against the code's lists.
func TestTheTableOfMetricsIsTheCode(t *testing.T) {
	text, err := os.ReadFile("../../examples/sidecar/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(wasm_e2ee_[a-z_]+)` \\| (\\w+) \\| ([^|]*) \\| [^|]+ \\|$").FindAllStringSubmatch(string(text), -1) {
		got = append(got, m[1]+" "+m[2]+" "+strings.NewReplacer("`", "", " ", "").Replace(m[3]))
	}
	for _, f := range families() {
		kind := "gauge"
		if f.kind == prometheus.CounterValue {
			kind = "counter"
		}
		want = append(want, f.name+" "+kind+" "+strings.Join(f.labels, ","))
	}
	want = append(want, prefix+"build_info gauge version,goversion,abi")
	if !slices.Equal(got, want) {
		t.Errorf("OPERATING.md lists\n%s\nthe code has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	_, alarms, _ := strings.Cut(string(text), "\n## Alarms\n")
	alarms, _, _ = strings.Cut(alarms, "\n## ")
	for _, kind := range agent.Alarms() {
		if !strings.Contains(alarms, "\n| `"+string(kind)+"` | ") {
			t.Errorf("OPERATING.md does not explain alarm %s", kind)
		}
	}
	if rows := strings.Count(alarms, "\n| `"); rows != len(agent.Alarms()) {
		t.Errorf("OPERATING.md explains %d alarms, there are %d", rows, len(agent.Alarms()))
	}
	// What it says elsewhere exists.
	for _, name := range regexp.MustCompile("wasm_e2ee_[a-z_]+").FindAllString(string(text), -1) {
		if !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(w, name+" ") }) {
			t.Errorf("OPERATING.md speaks of %s", name)
		}
	}
}

func TestNamesFollowPrometheus(t *testing.T) {
	s := &Server{}
	source := busy(time.Now())
	source.Channel = func() lease.Stats { return lease.Stats{} }
	s.Serve(source)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(s))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestReadinessSaysWhyNot(t *testing.T) {
	s := listen(t, io.Discard)
	if code, text := get(t, s, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "starts") {
		t.Errorf("before there is a sidecar: %d %s", code, text)
	}
	if code, _ := get(t, s, "/healthz"); code != http.StatusOK {
		t.Errorf("it lives: %d", code)
	}
	at := time.Now()
	for _, c := range []struct {
		name, why string
		change    func(*agent.Snapshot, *Source)
	}{
		{"all well", "", func(*agent.Snapshot, *Source) {}},
		{"not ready yet", "roster", func(a *agent.Snapshot, _ *Source) { a.Ready = false }},
		{"contact lost", "no contact", func(a *agent.Snapshot, _ *Source) { a.Contact = at.Add(-contactLimit - time.Second) }},
		{"no contact yet", "no contact", func(a *agent.Snapshot, _ *Source) { a.Contact = time.Time{} }},
		{"credential over", "credential", func(a *agent.Snapshot, _ *Source) { a.NotAfter = at.Add(-time.Second) }},
		{"credential revoked", "revoked", func(a *agent.Snapshot, _ *Source) { a.Revoked = true }},
		{"draining", "drains", func(_ *agent.Snapshot, s *Source) { s.Draining = func() bool { return true } }},
	} {
		source := busy(at)
		snapshot := source.Agent()
		c.change(&snapshot, &source)
		source.Agent = func() agent.Snapshot { return snapshot }
		s.Serve(source)
		code, text := get(t, s, "/readyz")
		_, scraped := get(t, s, "/metrics")
		want, gauge := http.StatusOK, "\nwasm_e2ee_ready 1\n"
		if c.why != "" {
			want, gauge = http.StatusServiceUnavailable, "\nwasm_e2ee_ready 0\n"
		}
		if code != want || !strings.Contains(text, c.why) || !strings.Contains(scraped, gauge) {
			t.Errorf("%s: %d %s", c.name, code, text)
		}
	}
}

func TestTheReportIsServedAsOfATime(t *testing.T) {
	s := listen(t, io.Discard)
	if code, _ := get(t, s, "/exposure"); code != http.StatusServiceUnavailable {
		t.Errorf("before there is a sidecar: %d", code)
	}
	s.Serve(busy(time.Now()))
	code, text := get(t, s, "/exposure?as_of=2026-01-02T03:04:05Z")
	var report exposure.Report
	if err := json.Unmarshal([]byte(text), &report); err != nil || code != http.StatusOK || report.AsOf.Format(time.RFC3339) != "2026-01-02T03:04:05Z" || report.P != 570 {
		t.Errorf("%d %v\n%s", code, err, text)
	}
	if code, text := get(t, s, "/exposure?as_of=yesterday"); code != http.StatusBadRequest || !strings.Contains(text, "as_of") {
		t.Errorf("%d %s", code, text)
	}
}

func TestATakenPortFailsTheStartWithAHint(t *testing.T) {
	s := listen(t, io.Discard)
	if other, err := Listen(s.Addr().String(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("%v %v", other, err)
	}
}

// TestNothingOfTheServerIsLeft closes it during a scrape, with a client that reads nothing and
// one that stays connected.
func TestNothingOfTheServerIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := Listen("127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	source := busy(time.Now())
	var inUse atomic.Int32
	scraped := make(chan struct{})
	module := source.Plane.Module
	source.Plane.Module = func() [abi.NumCounters]uint64 {
		inUse.Add(1)
		defer inUse.Add(-1)
		close(scraped)
		time.Sleep(closeTime + 200*time.Millisecond)
		return module()
	}
	s.Serve(source)
	idle, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	fmt.Fprintf(idle, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if line, err := bufio.NewReader(idle).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q %v", line, err)
	}
	deaf, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	fmt.Fprintf(deaf, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	<-scraped
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if inUse.Load() != 0 {
		t.Error("the source is in use after Close")
	}
	if took := time.Since(began); took > closeTime+5*time.Second {
		t.Errorf("closing took %v", took)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}
