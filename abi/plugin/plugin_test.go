package plugin

import (
	"reflect"
	"strings"
	"testing"
)

const least = `{"realm":"00112233445566778899aabbccddeeff","agent_cluster":"agent","brokers":{"by_id":{"1":"127.0.0.1:9101"}}}`

func TestWhatIsWrittenIsRead(t *testing.T) {
	c, err := Parse([]byte(least))
	if err != nil {
		t.Fatal(err)
	}
	c.Policy = Policy{Plain: []string{"metrics.*"}, OnUnreadable: "skip"}
	text, err := c.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text)
	if err != nil || !reflect.DeepEqual(c, again) {
		t.Errorf("%v\n%+v\n%+v", err, c, again)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":          "EOF",
		"{}":        "realm",
		least + "x": "follows",
		strings.Replace(least, `"agent"`, `""`, 1):                                  "agent_cluster",
		strings.Replace(least, `"brokers"`, `"broker"`, 1):                          "broker",
		strings.Replace(least, `"by_id":{"1":"127.0.0.1:9101"}`, ``, 1):             "brokers is empty",
		strings.Replace(least, `127.0.0.1:9101`, `127.0.0.1`, 1):                    "HOST:PORT",
		strings.Replace(least, `127.0.0.1:9101`, `::1:9101`, 1):                     "HOST:PORT",
		strings.Replace(least, `"by_id"`, `"host":"a","by_id"`, 1):                  "go together",
		strings.Replace(least, `}}}`, `}},"policy":{"on_unreadable":"ignore"}}`, 1): "on_unreadable",
		strings.Replace(least, `}}}`, `}},"policy":{"plain":["a*b"]}}`, 1):          "policy.plain",
		strings.Replace(least, `}}}`, `}},"policy":{"plian":["a"]}}`, 1):            "plian",
		strings.Replace(least, `}}}`, `}},"max_frame_bytes":1000000000}`, 1):        "max_frame_bytes",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAddressesAreSplitAtTheirPort(t *testing.T) {
	for address, want := range map[string]string{"kafka:1": "kafka", "[::1]:65535": "::1", "10.0.0.1:9092": "10.0.0.1"} {
		if host, port, err := SplitAddress(address); err != nil || host != want || port == 0 {
			t.Errorf("%s: %q %d %v", address, host, port, err)
		}
	}
	for _, address := range []string{"", ":1", "a", "a:", "a:0", "a:65536", "a:x", "::1:1", "[::1:1"} {
		if _, _, err := SplitAddress(address); err == nil {
			t.Errorf("%q was split", address)
		}
	}
}
