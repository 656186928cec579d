package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// listedACL is one line of what a refused command says that its principal needs.
var listedACL = regexp.MustCompile(`(?m)^\s+([A-Za-z, ]+) on (Topic|Group) (\S+) \((literal|prefixed)\)$`)

// A closed cluster allows nothing that no ACL names.
type closedCluster struct {
	*broker.Cluster
	adm *kadm.Client
}

func login(user string) kgo.Opt {
	return kgo.SASL(plain.Auth{User: user, Pass: "secret"}.AsMechanism())
}

func startClosed(t *testing.T, users ...string) *closedCluster {
	t.Helper()
	deps.Need(t, deps.Kafka)
	known := ""
	for _, u := range append(users, "admin") {
		known += fmt.Sprintf(` user_%s="secret"`, u)
	}
	c, err := broker.Start(filepath.Join(t.TempDir(), "kafka"), broker.Options{Properties: map[string]string{
		"listener.security.protocol.map":              "CLIENT:SASL_PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"sasl.enabled.mechanisms":                     "PLAIN",
		"listener.name.client.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required" + known + ";",
		"authorizer.class.name":                       "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                                 "User:ANONYMOUS;User:admin", // the broker itself, and the test
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return &closedCluster{c, admin(t, c.Bootstrap, login("admin"))}
}

// allow grants a principal exactly what a refusal listed.
func (c *closedCluster) allow(t *testing.T, user, refusal string) {
	t.Helper()
	lines := listedACL.FindAllStringSubmatch(refusal, -1)
	if lines == nil {
		t.Fatalf("user %s: no list of ACLs in\n%s", user, refusal)
	}
	for _, l := range lines {
		var operations []kadm.ACLOperation
		for _, name := range strings.Split(l[1], ", ") {
			operation, err := kmsg.ParseACLOperation(name)
			if err != nil {
				t.Fatalf("%q: %v", l[0], err)
			}
			operations = append(operations, operation)
		}
		pattern := kadm.ACLPatternLiteral
		if l[4] == "prefixed" {
			pattern = kadm.ACLPatternPrefixed
		}
		on := kadm.NewACLs().Topics(l[3])
		if l[2] == "Group" {
			on = kadm.NewACLs().Groups(l[3])
		}
		made, err := c.adm.CreateACLs(t.Context(), on.ResourcePatternType(pattern).Allow("User:"+user).AllowHosts("*").Operations(operations...))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range made {
			if m.Err != nil {
				t.Fatalf("%q: %v", l[0], m.Err)
			}
		}
	}
}

// as writes a configuration that logs in as user, for whichever command.
func (c *closedCluster) as(t *testing.T, user string) (file string, more nodes.Settings) {
	t.Helper()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	more = nodes.Settings{"sasl": map[string]string{"mechanism": "PLAIN", "username": user, "password_file": password}}
	b, err := yaml.Marshal(nodes.Settings{"bootstrap": []string{c.Bootstrap}, "sasl": more["sasl"]})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "cluster.yaml")
	for path, text := range map[string][]byte{password: []byte("secret\n"), file: b} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, more
}

// On a cluster that allows nothing by itself, what each command lists when it is refused is
// all that its principal needs: to issue, enrol, seal, open, renew and share.
func TestTheListedACLsAreEnough(t *testing.T) {
	c := startClosed(t, "issuer", "producer", "consumer", "app")
	r := nodes.NewRealm(t)
	topic := createTopic(t, c.adm, "acls", 1, nil)
	c.allow(t, "app", "\n  Read, Write, Describe on Topic acls (prefixed)\n  Read on Group acls (prefixed)\n")

	issuerFile, _ := c.as(t, "issuer")
	out, code := nodes.Run(t, "issuer", "--dir", string(r), "--config", issuerFile)
	if code != 1 {
		t.Fatalf("an issuer that may do nothing: exit code %d\n%s", code, out)
	}
	c.allow(t, "issuer", out)
	issuer := startIssuer(t, r, []string{"--config", issuerFile})

	allowed := map[string]bool{}
	node := func(user string, want nodes.Role) *nodes.Sidecar {
		t.Helper()
		file, more := c.as(t, user)
		ticket := newTicket(t, r, want)
		if !allowed[user] {
			out, code := nodes.Run(t, "enroll", "--state", filepath.Join(t.TempDir(), "refused.state"), "--config", file, ticket)
			if code != 1 {
				t.Fatalf("a node that may do nothing: exit code %d\n%s", code, out)
			}
			c.allow(t, user, out)
		}
		state, _ := take(t, r, []string{"--config", file}, ticket)
		if !allowed[user] {
			out, code := nodes.Run(t, "proxy", "--config", nodes.Configuration(t, c.Bootstrap, state, more))
			if code != 1 {
				t.Fatalf("a sidecar that may do nothing with grants: exit code %d\n%s", code, out)
			}
			c.allow(t, user, out)
			allowed[user] = true
		}
		return nodes.StartSidecar(t, c.Bootstrap, state, more)
	}
	want := nodes.Role{Consume: "acls-*", Groups: []string{"acls-*"}, Days: "0.00035"} // 30 s: renewed after about 20
	reader := node("consumer", want)
	writer := node("producer", nodes.Role{Produce: "acls-*", Days: "0.00035"})

	cl, err := kgo.NewClient(kgo.SeedBrokers(writer.Addr), login("app"), kgo.DefaultProduceTopic(topic), kgo.DisableIdempotentWrite())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const records = 5
	for range records {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("a record")).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	consume := func(s *nodes.Sidecar, opts ...kgo.Opt) {
		t.Helper()
		if _, err := clients.FranzConsume(t.Context(), clients.Job{Bootstrap: s.Addr, Topic: topic, Count: records}, append(opts, login("app"))...); err != nil {
			t.Errorf("consume: %v", err)
		}
	}
	consume(reader, kgo.ConsumerGroup("acls-group"))
	late := node("consumer", want)
	consume(late, kgo.ConsumerGroup("acls-other"))
	expect(t, late.Process, "root received from a peer")
	for _, s := range []*nodes.Sidecar{reader, writer} {
		expect(t, s.Process, `"the identity key was renewed"`)
	}
	// By now each node has looked at groups and offsets, which it does every ten seconds.
	for name, log := range map[string]string{"issuer": issuer.Output(), "consumer": reader.Output(), "late consumer": late.Output(), "producer": writer.Output()} {
		if refused := lines(log, "uthoriz"); refused != "" {
			t.Errorf("the %s is refused something that no list named:\n%s", name, refused)
		}
	}
}
