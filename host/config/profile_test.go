package config

import (
	"strings"
	"testing"
	"time"
)

// The promise of the product: without a word about timing, at most ten minutes are exposed.
func TestDefaultWindowOfExposureIsUnderTenMinutes(t *testing.T) {
	f, err := read(t, least)
	if err != nil {
		t.Fatal(err)
	}
	if p := f.KX1().P(); p > 10*time.Minute || p != 9*time.Minute+30*time.Second {
		t.Errorf("P is %v, want 9m30s (PROTOCOL.md §2.17)", p)
	}
	if f.Profile() != "strict" || f.Policy.OnUnreadable == Skip {
		t.Errorf("the default is the profile %s, and %q", f.Profile(), f.Policy.OnUnreadable)
	}
}

func TestWindowOfExposureFollowsFromTheProfile(t *testing.T) {
	for text, want := range map[string]struct {
		profile string
		p       time.Duration
	}{
		"policy: {replay: 1h}\n":                                                      {"replay 1h0m0s", 66*time.Minute + 30*time.Second},
		"policy: {replay: 3m}\n":                                                      {"strict", 9*time.Minute + 30*time.Second},
		"policy: {replay: 30m}\ntiming: {epoch: 1m}\n":                                {"replay 30m0s", 34*time.Minute + 30*time.Second},
		"timing: {window: 30m}\n":                                                     {"replay 30m0s", 36*time.Minute + 30*time.Second},
		"timing: {window: 2m}\n":                                                      {"strict", 9 * time.Minute},
		"timing: {window: 2m, settle: 10m}\n":                                         {"strict", 16*time.Minute + 30*time.Second},
		"timing: {prekey_rotation: 1m, epoch: 90s}\n":                                 {"strict", 8 * time.Minute},
		"timing: {prekey_rotation: 10m, hard_cap: 200h}\n" + "policy: {replay: 9m}\n": {"replay 9m0s", 16 * time.Minute},
	} {
		f, err := read(t, least+text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if f.Profile() != want.profile || f.KX1().P() != want.p {
			t.Errorf("%s: profile %s and P %v, want %s and %v", text, f.Profile(), f.KX1().P(), want.profile, want.p)
		}
	}
}

func TestProfileThatContradictsItselfIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"policy: {replay: 1h}\ntiming: {window: 1h}\n":          "policy.replay and timing.window",
		"policy: {replay: 1m}\n":                                "policy.replay is 1m0s",
		"policy: {replay: -1h}\n":                               "policy.replay is -1h",
		"policy: {replay: 8000h}\n":                             "hard_cap",
		"policy: {replay: forever}\n":                           `"forever" is not a duration`,
		"policy: {replay: 5m}\ntiming: {prekey_rotation: 7m}\n": "prekey_rotation + prekey_grace",
		"policy: {freshness: strict}\n":                         "policy.freshness",
		"policy: {on_unreadable: drop}\n":                       "policy.on_unreadable",
	} {
		if _, err := read(t, least+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"policy: {freshness: warn}\n", "policy: {freshness: require}\n", "policy: {on_unreadable: stop}\n", "policy: {on_unreadable: skip}\n"} {
		if _, err := read(t, least+text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
