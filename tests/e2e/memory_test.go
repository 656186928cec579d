package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// memory reads a line of /proc/PID/status in bytes: VmRSS is what the process holds now,
// VmHWM the most it ever held.
func memory(t *testing.T, pid int, line string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, line)
	return 0
}
