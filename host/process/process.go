// Package process runs the programs beside this one: a demo's Envoys, a test's brokers and
// clients. It collects what they print, waits for a line, and never leaves one behind.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Process is a running program. Its methods may be called from any goroutine.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed after the program ended and its output was read whole
	err  error         // of Wait, set before done is closed
}

// A Spec says what to run.
type Spec struct {
	Name   string // in messages
	Args   []string
	Dir    string
	Env    []string  // added to this process's environment
	Stdin  io.Reader // nil: none
	Stdout io.Writer // nil: collected together with the standard error
}

// Start runs a program; its standard output and error are collected together. The program
// is killed by the system if this process dies first, where the system can.
func Start(s Spec) (*Process, error) {
	p := &Process{name: s.Name, done: make(chan struct{}), cmd: exec.Command(s.Args[0], s.Args[1:]...)}
	p.out.changed = sync.NewCond(&p.out.mu)
	p.cmd.Dir = s.Dir
	p.cmd.Env = append(os.Environ(), s.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = dieWithParent()
	if s.Stdin != nil {
		p.cmd.Stdin = s.Stdin
	}
	if s.Stdout != nil {
		p.cmd.Stdout = s.Stdout
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
		p.out.wake()
	}()
	return p, nil
}

// Run runs a program to its end and returns what it printed. When ctx ends first, the
// program is killed and the error wraps ctx's.
func Run(ctx context.Context, s Spec) (string, error) {
	p, err := Start(s)
	if err != nil {
		return "", err
	}
	err = p.Wait(ctx)
	if ctx.Err() != nil {
		p.Kill()
	}
	return p.Output(), err
}

// Pid is the program's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output is what the program has printed so far.
func (p *Process) Output() string { return p.out.String() }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the program's end. The error is nil for exit code 0, wraps *exec.ExitError
// for another, and ctx's error when ctx ended first (the program then goes on).
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w; it printed:\n%s", p.name, ctx.Err(), p.tail())
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w; it printed:\n%s", p.name, p.err, p.tail())
	}
	return nil
}

// WaitFor waits until the program has printed a text. It fails when the program ends first
// or ctx does.
func (p *Process) WaitFor(ctx context.Context, text string) error {
	stop := context.AfterFunc(ctx, p.out.wake)
	defer stop()
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	for !bytes.Contains(p.out.buf.Bytes(), []byte(text)) {
		ended := false
		select {
		case <-p.done:
			ended = true
		default:
		}
		if ended || ctx.Err() != nil {
			why := ctx.Err()
			if ended {
				why = errors.New("it ended")
			}
			return fmt.Errorf("%s: no %q: %w; it printed:\n%s", p.name, text, why, tail(p.out.buf.String()))
		}
		p.out.changed.Wait()
	}
	return nil
}

// Signal sends a signal to the program; one that has ended is left alone.
func (p *Process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// Stop asks the program to end (SIGTERM) and kills it when it has not within grace. It
// returns the exit code, -1 after a kill.
func (p *Process) Stop(grace time.Duration) int {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the program at once and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// ExitCode is the program's exit code; -1 while it runs, and after a signal.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

func (p *Process) tail() string { return tail(p.Output()) }

// tail keeps the end of a long text: the reason is nearly always there.
func tail(s string) string {
	s = strings.TrimRight(s, "\n")
	if over := len(s) - 4000; over > 0 {
		s = "…" + s[over:]
	}
	return s
}

// output is a buffer that wakes those who wait for its next byte.
type output struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed.Broadcast()
	return o.buf.Write(b)
}

func (o *output) wake() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed.Broadcast()
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
