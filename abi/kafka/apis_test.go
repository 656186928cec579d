package kafka_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

func TestAPINamesAreKafkas(t *testing.T) {
	for key := int16(0); key <= lastKey; key++ {
		want := kmsg.NameForKey(key)
		if key == 45 {
			want = "AlterPartitionReassignments" // kmsg has a name of its own
		}
		if got := kafka.APIName(key); !strings.EqualFold(got, want) {
			t.Errorf("key %d is %q, want %q", key, got, want)
		}
	}
	if got := kafka.APIName(-5); got != "API -5" {
		t.Error(got)
	}
}

func TestSupportedVersionsExist(t *testing.T) {
	passed := 0
	for key := int16(-1); key <= lastKey+5; key++ {
		low, high, ok := kafka.Supported(key)
		if !ok {
			continue
		}
		passed++
		if q := kmsg.RequestForKey(key); low < 0 || low > high || high > q.MaxVersion() {
			t.Errorf("%s: %d to %d, where kmsg ends at %d", kafka.APIName(key), low, high, q.MaxVersion())
		}
	}
	if passed != 67 {
		t.Errorf("%d APIs are passed", passed)
	}
}

func TestSaslHandshakeWithRawFramesIsNotSupported(t *testing.T) {
	if low, high, ok := kafka.Supported(kafka.KeySaslHandshake); !ok || low != 1 || high != 1 {
		t.Fatal(low, high, ok)
	}
}

func TestAPIsAmongBrokersAndTelemetryAreNotSupported(t *testing.T) {
	for _, key := range []int16{4, 5, 6, 7, 27, 52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 71, 72, 73, 80, 81, 82, 83, 84, 85, 86, 87} {
		if _, _, ok := kafka.Supported(key); ok {
			t.Errorf("%s is passed", kafka.APIName(key))
		}
	}
}

// No API may slip through with an address or with records that nothing here looks at: the
// fields of every request and response that is passed are searched by name.
func TestNothingPassedCarriesAddressesOrRecordsUnparsed(t *testing.T) {
	harmless := []string{
		"DescribeGroupsResponse.Groups.Members.ClientHost",        // of a client
		"ConsumerGroupDescribeResponse.Groups.Members.ClientHost", // of a client
		"ShareGroupDescribeResponse.Groups.Members.ClientHost",    // of a client
		"StreamsGroupDescribeResponse.Groups.Members.ClientHost",  // of a client
		"StreamsGroupDescribeResponse.Groups.Members.UserEndpoint.Host",
		"StreamsGroupHeartbeatRequest.UserEndpoint.Host",
		"StreamsGroupHeartbeatResponse.PartitionsByUserEndpoint.UserEndpoint.Host",
		"DescribeACLsRequest.Host", // of a principal
		"DescribeACLsResponse.Resources.ACLs.Host",
		"CreateACLsRequest.Creations.Host",
		"DeleteACLsRequest.Filters.Host",
		"DeleteACLsResponse.Results.MatchingACLs.Host",
	}
	parsed := map[string]bool{}
	for _, f := range formats {
		parsed[reflect.TypeOf(f.blank(0)).Elem().Name()] = true
	}
	var found []string
	for key := int16(0); key <= lastKey; key++ {
		if _, _, ok := kafka.Supported(key); !ok {
			continue
		}
		for _, m := range []any{kmsg.RequestForKey(key), kmsg.ResponseForKey(key)} {
			typ := reflect.TypeOf(m).Elem()
			if !parsed[typ.Name()] {
				search(typ, typ.Name(), &found)
			}
		}
	}
	for _, path := range found {
		if !slices.Contains(harmless, path) {
			t.Errorf("%s is passed unparsed", path)
		}
	}
	for _, path := range harmless {
		if !slices.Contains(found, path) {
			t.Errorf("%s is not there: the search looks in the wrong place", path)
		}
	}
}

// search appends the paths of fields that look like addresses or record bytes.
func search(typ reflect.Type, path string, found *[]string) {
	for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return
	}
	for i := range typ.NumField() {
		field := typ.Field(i)
		at := path + "." + field.Name
		isBytes := field.Type == reflect.TypeFor[[]byte]()
		if strings.HasSuffix(field.Name, "Host") || isBytes && strings.Contains(field.Name, "Record") {
			*found = append(*found, at)
		}
		search(field.Type, at, found)
	}
}
