package keyring

import (
	"errors"
	"fmt"
	"time"
)

// propagation is what a new bundle is allowed to take from its node to every producer.
const propagation = time.Minute

// Timing is the periods of PROTOCOL.md §2.17. The names in parentheses are the keys of
// the configuration file.
type Timing struct {
	Epoch          time.Duration // T: age at which an epoch is replaced (epoch)
	Lead           time.Duration // a: how long before its end the next epoch is prepared (lead)
	PrekeyRotation time.Duration // R_p (prekey_rotation)
	PrekeyGrace    time.Duration // G_p: how long a superseded prekey is kept (prekey_grace)
	Skew           time.Duration // allowed difference between clocks (skew)
	Settle         time.Duration // wait after use_by before end offsets are noted (settle)
	Window         time.Duration // W: kept after every group is past (window)
	HardCap        time.Duration // H: erased this long after use_by, whatever groups do (hard_cap)
	Offline        time.Duration // O: how long a bundle is good for (offline)
	MaxEpoch       time.Duration // T_max: longest use_by - start that a consumer accepts (max_epoch)
}

// DefaultTiming returns the defaults of PROTOCOL.md §2.17.
func DefaultTiming() Timing {
	return Timing{
		Epoch:          3 * time.Minute,
		Lead:           30 * time.Second,
		PrekeyRotation: 3 * time.Minute,
		PrekeyGrace:    2 * time.Minute,
		Skew:           time.Minute,
		Settle:         2 * time.Minute,
		Window:         3 * time.Minute,
		HardCap:        7 * 24 * time.Hour,
		Offline:        72 * time.Hour,
		MaxEpoch:       24 * time.Hour,
	}
}

// Validate reports the first thing that does not hold together, by the names of the
// configuration file.
func (t Timing) Validate() error {
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"epoch", t.Epoch}, {"lead", t.Lead}, {"prekey_rotation", t.PrekeyRotation},
		{"prekey_grace", t.PrekeyGrace}, {"skew", t.Skew}, {"settle", t.Settle}, {"window", t.Window},
		{"hard_cap", t.HardCap}, {"offline", t.Offline}, {"max_epoch", t.MaxEpoch},
	} {
		if f.d < time.Millisecond {
			return fmt.Errorf("timing: %s is %v, want at least 1ms", f.name, f.d)
		}
	}
	switch {
	case t.Lead >= t.Epoch:
		return fmt.Errorf("timing: lead (%v) must be shorter than epoch (%v)", t.Lead, t.Epoch)
	case t.PrekeyRotation+t.PrekeyGrace > t.Epoch+t.Window:
		return fmt.Errorf("timing: prekey_rotation + prekey_grace (%v) must not exceed epoch + window (%v), or prekeys outlive the topic secrets that they open",
			t.PrekeyRotation+t.PrekeyGrace, t.Epoch+t.Window)
	case t.Epoch+t.Lead > t.MaxEpoch:
		return fmt.Errorf("timing: epoch + lead (%v) exceeds max_epoch (%v): no consumer would accept it", t.Epoch+t.Lead, t.MaxEpoch)
	case t.HardCap < t.Skew+t.Settle+t.Window:
		return fmt.Errorf("timing: hard_cap (%v) is shorter than skew + settle + window (%v): everything would be erased before it is read",
			t.HardCap, t.Skew+t.Settle+t.Window)
	case t.Offline < t.PrekeyRotation:
		return errors.New("timing: offline is shorter than prekey_rotation: bundles would expire before they are replaced")
	}
	return nil
}

// Backward is how far back from its oldest unconsumed record a caught-up consumer's leak
// reaches: T + a + skew + settle + W (PROTOCOL.md §2.17).
func (t Timing) Backward() time.Duration {
	return t.Epoch + t.Lead + t.Skew + t.Settle + t.Window
}

// Forward is how long after a leak new data stays exposed: R_p + propagation + a + T + a +
// skew (PROTOCOL.md §2.17).
func (t Timing) Forward() time.Duration {
	return t.PrekeyRotation + propagation + t.Lead + t.Epoch + t.Lead + t.Skew
}

// P is the rotation period that the product promises: the larger of Backward and Forward.
func (t Timing) P() time.Duration { return max(t.Backward(), t.Forward()) }
