package keyring

import (
	"strings"
	"testing"
	"time"
)

func TestDefaultWindowsAreThoseOfTheProtocol(t *testing.T) {
	d := DefaultTiming()
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	if d.Backward() != 9*time.Minute+30*time.Second || d.Forward() != 9*time.Minute || d.P() != d.Backward() {
		t.Errorf("backward %v, forward %v, P %v", d.Backward(), d.Forward(), d.P())
	}
}

func TestTimingThatDoesNotHoldTogetherIsNamed(t *testing.T) {
	for key, change := range map[string]func(*Timing){
		"epoch":           func(t *Timing) { t.Epoch = 0 },
		"lead":            func(t *Timing) { t.Lead = t.Epoch },
		"prekey_rotation": func(t *Timing) { t.PrekeyRotation = t.Epoch + t.Window },
		"prekey_grace":    func(t *Timing) { t.PrekeyGrace = -time.Second },
		"skew":            func(t *Timing) { t.Skew = 0 },
		"settle":          func(t *Timing) { t.Settle = time.Microsecond },
		"window":          func(t *Timing) { t.Window = 0 },
		"hard_cap":        func(t *Timing) { t.HardCap = time.Minute },
		"offline":         func(t *Timing) { t.Offline = time.Minute },
		"max_epoch":       func(t *Timing) { t.MaxEpoch = t.Epoch },
	} {
		timing := DefaultTiming()
		change(&timing)
		if err := timing.Validate(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
