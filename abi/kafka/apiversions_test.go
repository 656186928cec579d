package kafka_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// clamped parses, clamps and appends what a broker offers, and returns what kmsg reads.
func clamped(t *testing.T, version int16, offer ...kmsg.ApiVersionsResponseApiKey) *kmsg.ApiVersionsResponse {
	t.Helper()
	m := kmsg.NewPtrApiVersionsResponse()
	m.Version, m.ApiKeys, m.ThrottleMillis = version, offer, 5
	m.SupportedFeatures = []kmsg.ApiVersionsResponseSupportedFeature{{Name: "metadata.version", MinVersion: 1, MaxVersion: 27}}
	m.FinalizedFeaturesEpoch = 41
	m.FinalizedFeatures = []kmsg.ApiVersionsResponseFinalizedFeature{{Name: "group.version", MaxVersionLevel: 1, MinVersionLevel: 1}}
	a, err := kafka.ParseApiVersionsResponse(version, m.AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	a.Clamp()
	m.ApiKeys = nil
	if err := m.ReadFrom(a.Append(nil)); err != nil {
		t.Fatal(err)
	}
	return m
}

func offer(key, low, high int16) kmsg.ApiVersionsResponseApiKey {
	return kmsg.ApiVersionsResponseApiKey{ApiKey: key, MinVersion: low, MaxVersion: high}
}

func TestClampIntersectsWithWhatIsSupported(t *testing.T) {
	for version := int16(0); version <= 4; version++ {
		got := clamped(t, version,
			offer(0, 0, 15), offer(1, 2, 19), offer(2, 3, 5), offer(3, 0, 13),
			offer(17, 0, 1), offer(18, 0, 5), offer(59, 0, 1), offer(72, 0, 0), offer(500, 0, 3),
			offer(78, 0, 0),  // before what is supported
			offer(8, 11, 12), // after it
		)
		want := []kmsg.ApiVersionsResponseApiKey{
			offer(0, 0, 13), offer(1, 4, 18), offer(2, 3, 5), offer(3, 0, 13), offer(17, 0, 1), offer(18, 0, 4),
		}
		if !slices.EqualFunc(got.ApiKeys, want, func(a, b kmsg.ApiVersionsResponseApiKey) bool {
			return a.ApiKey == b.ApiKey && a.MinVersion == b.MinVersion && a.MaxVersion == b.MaxVersion
		}) {
			t.Errorf("v%d: %+v", version, got.ApiKeys)
		}
		if version >= 1 && got.ThrottleMillis != 5 {
			t.Errorf("v%d: throttle %d", version, got.ThrottleMillis)
		}
		if version >= 3 && (len(got.SupportedFeatures) != 1 || got.SupportedFeatures[0].Name != "metadata.version" ||
			got.FinalizedFeaturesEpoch != 41 || len(got.FinalizedFeatures) != 1) {
			t.Errorf("v%d: features are lost: %+v", version, got)
		}
	}
}

func TestClampLeavesNoRangeEmpty(t *testing.T) {
	var all []kmsg.ApiVersionsResponseApiKey
	for key := int16(0); key < 100; key++ {
		for low := int16(0); low < 20; low++ {
			for high := low; high < 20; high++ {
				all = append(all, offer(key, low, high))
			}
		}
	}
	all = append(all, offer(2, 5, 4), offer(0, 5, 4)) // a broker's own empty range
	for _, k := range clamped(t, 4, all...).ApiKeys {
		low, high, ok := kafka.Supported(k.ApiKey)
		left := k.ApiKey == kafka.KeyProduce || k.ApiKey == kafka.KeySaslHandshake // as the broker gave it
		if !ok || k.MinVersion > k.MaxVersion || k.MaxVersion > high || k.MinVersion < low && !left {
			t.Fatalf("%s: %d to %d", kafka.APIName(k.ApiKey), k.MinVersion, k.MaxVersion)
		}
	}
}

// librdkafka switches compression off where the minimum is 3 (KAFKA-18659).
func TestClampKeepsTheMinimumOfProduce(t *testing.T) {
	for _, low := range []int16{0, 3} {
		if got := clamped(t, 3, offer(0, low, 13)).ApiKeys; len(got) != 1 || got[0].MinVersion != low {
			t.Errorf("%+v", got)
		}
	}
	if got := clamped(t, 3, offer(0, 0, 2)).ApiKeys; len(got) != 0 {
		t.Errorf("old message sets only: %+v", got)
	}
}

func TestTooNewApiVersionsIsAnsweredInVersion0(t *testing.T) {
	out := kafka.UnsupportedApiVersions().Append(nil)
	m := kmsg.NewPtrApiVersionsResponse()
	if err := m.ReadFrom(out); err != nil {
		t.Fatal(err)
	}
	if m.ErrorCode != 35 || len(m.ApiKeys) != 1 || m.ApiKeys[0].ApiKey != 18 || m.ApiKeys[0].MinVersion != 0 || m.ApiKeys[0].MaxVersion != 4 {
		t.Fatalf("%+v", m)
	}
	a, err := kafka.ParseApiVersionsResponse(4, out) // a broker's answer to a version that only we know
	if err != nil {
		t.Fatal(err)
	}
	a.Clamp()
	if again := a.Append(nil); !bytes.Equal(again, out) {
		t.Fatalf("%x, want %x", again, out)
	}
}
