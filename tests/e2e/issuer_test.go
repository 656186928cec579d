package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/flow"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// cluster are the flags with which a command reaches a broker that wants no login.
func cluster(bootstrap string) []string { return []string{"--bootstrap", bootstrap} }

// startIssuer runs the realm's issuer until the test ends.
func startIssuer(t *testing.T, r nodes.Realm, reach []string) *process.Process {
	t.Helper()
	p := start(t, "issuer", append([]string{"issuer", "--dir", string(r)}, reach...)...)
	expect(t, p, "msg=issuing")
	return p
}

// start runs the program beside the test, and shows what it said if that fails.
func start(t *testing.T, name string, args ...string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Spec{Name: name, Args: append([]string{nodes.Program(t)}, args...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop(15 * time.Second)
		if t.Failed() {
			t.Logf("%s (exit code %d) said:\n%s", name, p.ExitCode(), p.Output())
		}
	})
	return p
}

// expect waits until a program has said a text.
func expect(t *testing.T, p *process.Process, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	defer cancel()
	if err := p.WaitFor(ctx, text); err != nil {
		t.Fatal(err)
	}
}

// newTicket makes a ticket and returns its file.
func newTicket(t *testing.T, r nodes.Realm, want nodes.Role) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.ticket")
	args := []string{"realm", "ticket", "--dir", string(r), "--out", path}
	if want.Produce != "" {
		args = append(args, "--produce", want.Produce)
	}
	if want.Consume != "" {
		args = append(args, "--consume", want.Consume)
	}
	for _, g := range want.Groups {
		args = append(args, "--group", g)
	}
	if want.Days != "" {
		args = append(args, "--days", want.Days)
	}
	nodes.MustRun(t, args...)
	return path
}

var enrolledNode = regexp.MustCompile(`(?m)^node ([0-9a-f]{32}) of realm`)

// take enrols a new node with a ticket, and returns its state file and its id.
func take(t *testing.T, r nodes.Realm, reach []string, ticket string) (state, node string) {
	t.Helper()
	state = filepath.Join(t.TempDir(), "node.state")
	out, code := nodes.Run(t, append([]string{"enroll", "--state", state, "--timeout", "45s", ticket}, reach...)...)
	found := enrolledNode.FindStringSubmatch(out)
	if code != 0 || found == nil {
		t.Fatalf("enroll: exit code %d\n%s", code, out)
	}
	return state, found[1]
}

// probe is what a sidecar answers at a path of its metrics listener.
func probe(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	answer, err := http.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// metricsAt is a setting of the sidecar, and where it then answers.
func metricsAt(t *testing.T) (nodes.Settings, string) {
	t.Helper()
	ports, err := broker.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	return nodes.Settings{"metrics": map[string]string{"listen": addr}}, addr
}

// flowing has records flow to one member of a group until the function that it returns is
// called, which then waits for each of them.
func flowing(t *testing.T, topic, name string, writer, reader *nodes.Sidecar) (end func()) {
	t.Helper()
	f := flow.New(topic, 1, uint64(time.Now().UnixNano()))
	m := &flow.Member{Group: &flow.Group{Name: name}, Flow: f, Bootstrap: reader.Addr}
	m.Join(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Produce(ctx, writer.Addr, 20) }()
	t.Cleanup(func() { cancel(); m.Leave() })
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("produce: %v", err)
		}
		f.Await(t, name)
		m.Leave()
		f.Check(t, name)
	}
}

// Nodes that enrolled with tickets renew their keys, lineage after lineage, while records
// flow; the issuer is killed on the way and comes back. No record is lost, refused or late.
func TestNodesWithTicketsRenewWhileRecordsFlow(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	reach := cluster(b.Bootstrap)
	issuer := startIssuer(t, r, reach)
	const days = "0.00028" // 24 s: renewed after about 16
	topic := newTopic(t, b.Bootstrap, "renew", 1, nil)
	consumer, _ := take(t, r, reach, newTicket(t, r, nodes.Role{Consume: "renew-*", Groups: []string{"renew-*"}, Days: days}))
	producer, _ := take(t, r, reach, newTicket(t, r, nodes.Role{Produce: "renew-*", Days: days}))
	reader, writer := nodes.StartSidecar(t, b.Bootstrap, consumer, nil), nodes.StartSidecar(t, b.Bootstrap, producer, nil)
	end := flowing(t, topic, "renew-group", writer, reader)
	for _, s := range []*nodes.Sidecar{reader, writer} {
		expect(t, s.Process, `"the identity key was renewed"`)
	}
	issuer.Kill()
	issuer = startIssuer(t, r, reach)
	for _, s := range []*nodes.Sidecar{reader, writer} {
		expect(t, s.Process, "lineage=2")
	}
	end()
	for name, log := range map[string]string{"consumer": reader.Output(), "producer": writer.Output(), "issuer": issuer.Output()} {
		if strings.Contains(log, "alarm=") || strings.Contains(log, "has ended") {
			t.Errorf("the %s says\n%s", name, log)
		}
	}
}

// One consumer of two is revoked while records flow: producers go on with an epoch that it is
// not granted, it says so wherever one looks, its client gets an error, and the other member
// of its group gets every record.
func TestARevokedConsumerIsCutOffAndTheOthersGoOn(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	reach := cluster(b.Bootstrap)
	startIssuer(t, r, reach)
	topic := newTopic(t, b.Bootstrap, "revoke", 1, nil)
	want := nodes.Role{Consume: "revoke-*", Groups: []string{"revoke-*"}}
	kept, _ := take(t, r, reach, newTicket(t, r, want))
	lost, thief := take(t, r, reach, newTicket(t, r, want))
	producer, _ := take(t, r, reach, newTicket(t, r, nodes.Role{Produce: "revoke-*"}))
	more, metrics := metricsAt(t)
	revoked, reader := nodes.StartSidecar(t, b.Bootstrap, lost, more), nodes.StartSidecar(t, b.Bootstrap, kept, nil)
	writer := nodes.StartSidecar(t, b.Bootstrap, producer, nil)
	end := flowing(t, topic, "revoke-group", writer, reader)
	expect(t, writer.Process, "recipients=2")
	if code, why := probe(t, metrics, "/readyz"); code != http.StatusOK {
		t.Fatalf("before it is revoked: %d %s", code, why)
	}

	begin := time.Now()
	out, code := nodes.Run(t, append([]string{"realm", "revoke", "--dir", string(r), "--node", thief}, reach...)...)
	if code != 0 || !strings.Contains(out, "revoked: node "+thief) {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	expect(t, writer.Process, "recipients=1")
	t.Logf("an epoch without it after %v", time.Since(begin).Round(time.Millisecond))
	expect(t, revoked.Process, `"this node is revoked`)
	if code, why := probe(t, metrics, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(why, "revoked") {
		t.Errorf("its probe: %d %s", code, why)
	}
	// Its client reads to the end of what was granted, and gets an error there.
	_, err := clients.FranzConsume(t.Context(), clients.Job{Bootstrap: revoked.Addr, Topic: topic, Count: 1 << 20, Timeout: 30 * time.Second})
	if !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("its client: %v, want %v", err, kerr.TopicAuthorizationFailed)
	}
	said := lines(revoked.Output(), `msg="batch cannot be opened"`)
	if !strings.Contains(said, "credential was revoked") || !strings.Contains(said, "enrol a new identity") || strings.Contains(said, "issue a credential") {
		t.Errorf("its log, or the hint there:\n%s", said)
	}
	end()

	// The state on its disk is worth nothing to a new sidecar either.
	revoked.Stop(15 * time.Second)
	expectRefusal(t, []string{"this node is revoked", "enrol it anew"}, "proxy", "--config", nodes.Configuration(t, b.Bootstrap, lost, nil))
}

// A ticket makes one node, whoever of the two is killed on the way and however often, and no
// second one; what is no ticket makes none.
func TestATicketMakesOneNode(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	reach := cluster(b.Bootstrap)
	ticket := newTicket(t, r, nodes.Role{Produce: "once-*"})
	state := filepath.Join(t.TempDir(), "node.state")
	args := append([]string{"enroll", "--state", state, ticket}, reach...)

	node := start(t, "a node without issuer", args...)
	expect(t, node, "waiting for the issuer")
	issuer := startIssuer(t, r, reach)
	expect(t, node, "the issuer answered")
	issuer.Kill()
	node.Kill()
	startIssuer(t, r, reach)
	out, code := nodes.Run(t, append(args, "--timeout", "45s")...)
	if code != 0 || !enrolledNode.MatchString(out) {
		t.Fatalf("after both were killed: exit code %d\n%s", code, out)
	}
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its state: %v, %v", info, err)
	}

	second := filepath.Join(t.TempDir(), "second.state")
	expectRefusal(t, []string{"no issuer answered within 3s", "used before"},
		append([]string{"enroll", "--state", second, "--timeout", "3s", ticket}, reach...)...)
	book, _ := nodes.Run(t, "inspect", filepath.Join(string(r), "issuer.book"))
	id := enrolledNode.FindStringSubmatch(out)[1]
	if !strings.Contains(book, "used by node "+id) {
		t.Errorf("the book does not say who used the ticket:\n%s", book)
	}

	line, err := os.ReadFile(newTicket(t, r, nodes.Role{Produce: "once-*"}))
	if err != nil {
		t.Fatal(err)
	}
	line[len(line)/2] ^= 1
	damaged := filepath.Join(t.TempDir(), "damaged.ticket")
	if err := os.WriteFile(damaged, line, 0o600); err != nil {
		t.Fatal(err)
	}
	expectRefusal(t, []string{"damaged"}, append([]string{"enroll", "--state", second, damaged}, reach...)...)
}

// A second use of a ticket is an alarm where the issuer runs, and names who used it first.
func TestASecondUseOfATicketIsAnAlarm(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	reach := cluster(b.Bootstrap)
	issuer := startIssuer(t, r, reach)
	ticket := newTicket(t, r, nodes.Role{Produce: "once-*"})
	_, first := take(t, r, reach, ticket)
	thief := start(t, "a thief", append([]string{"enroll", "--state", filepath.Join(t.TempDir(), "thief.state"), ticket}, reach...)...)
	expect(t, issuer, "alarm=ticket_reuse")
	if said := lines(issuer.Output(), "alarm=ticket_reuse"); !strings.Contains(said, "node "+first) || !strings.Contains(said, "hint: ") {
		t.Errorf("the alarm: %s", said)
	}
	thief.Signal(os.Interrupt)
	<-thief.Done()
	if code := thief.ExitCode(); code != 130 {
		t.Errorf("interrupted: exit code %d, want 130", code)
	}
}

// A consumer whose disk is lost enrols anew with another ticket, and reads the backlog of its
// group with keys from the member that is left.
func TestALostDiskIsReplacedWithATicket(t *testing.T) {
	b := sharedBroker(t)
	r := nodes.NewRealm(t)
	reach := cluster(b.Bootstrap)
	startIssuer(t, r, reach)
	topic := newTopic(t, b.Bootstrap, "disk", 1, nil)
	want := nodes.Role{Consume: "disk-*", Groups: []string{"disk-*"}}
	states := make([]string, 3)
	for i, w := range []nodes.Role{want, want, {Produce: "disk-*"}} {
		states[i], _ = take(t, r, reach, newTicket(t, r, w))
	}
	peer, gone := nodes.StartSidecar(t, b.Bootstrap, states[0], nil), nodes.StartSidecar(t, b.Bootstrap, states[1], nil)
	writer := nodes.StartSidecar(t, b.Bootstrap, states[2], nil)
	f := flow.New(topic, 1, 5)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := f.Produce(ctx, writer.Addr, 20); err != nil {
		t.Fatal(err)
	}
	expect(t, peer.Process, "root received")
	gone.Stop(15 * time.Second)
	if err := os.Remove(states[1]); err != nil {
		t.Fatal(err)
	}
	anew, _ := take(t, r, reach, newTicket(t, r, want))
	m := &flow.Member{Group: &flow.Group{Name: "disk-group"}, Flow: f, Bootstrap: nodes.StartSidecar(t, b.Bootstrap, anew, nil).Addr}
	m.Join(t)
	defer m.Leave()
	f.Await(t, "disk-group")
	f.Check(t, "disk-group")
}
