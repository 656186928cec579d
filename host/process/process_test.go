package process

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func shell(t *testing.T, script string) Spec {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh")
	}
	return Spec{Name: "script", Args: []string{sh, "-c", script}, Env: []string{"WORD=said"}}
}

func TestWhatAProgramPrintsIsCollected(t *testing.T) {
	out, err := Run(t.Context(), shell(t, "echo $WORD; echo wrong >&2; exit 3"))
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "wrong") {
		t.Errorf("%v", err)
	}
	if out != "said\nwrong\n" {
		t.Errorf("%q", out)
	}
}

func TestALineIsWaitedForUntilTheProgramEnds(t *testing.T) {
	p, err := Start(shell(t, "echo first; read line"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	if err := p.WaitFor(t.Context(), "first"); err != nil {
		t.Error(err)
	}
	if err := p.WaitFor(t.Context(), "second"); err == nil {
		t.Error("a line came that was not printed")
	}
}

func TestNoProgramIsLeftBehind(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := Run(ctx, shell(t, "exec sleep 60")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	p, err := Start(shell(t, "trap '' TERM; echo up; while :; do sleep 0.1; done"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WaitFor(t.Context(), "up"); err != nil {
		t.Error(err)
	}
	if code := p.Stop(100 * time.Millisecond); code != -1 {
		t.Errorf("exit code %d of a program that ignores SIGTERM", code)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
}
