package simd

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"golang.org/x/crypto/chacha20poly1305"
)

// A contestant does one of the kernel's works over n bytes as often as it is told, and says
// how long that took.
type contestant func(work string, n, times int) time.Duration

// Works and the bytes of associated data, which are those of a packed value.
const (
	workSeal = "seal"
	workCRC  = "crc32c"
	aadBytes = 70
)

// BenchmarkAgainstNative runs the kernel and the same work in native Go in turn. The metric
// "of-native" is the median of the ratios of neighbouring runs: the machine's own speed and
// what else runs on it cancel out.
func BenchmarkAgainstNative(b *testing.B) {
	native := nativeGo(b)
	for _, engine := range []struct {
		name string
		open func(*testing.B) contestant
	}{{"wazero", inWazero}, {"v8", inV8}} {
		for _, work := range []string{workSeal, workCRC} {
			for _, n := range []int{64, 1 << 10, 16 << 10, 1 << 20} {
				b.Run(fmt.Sprintf("%s/%s/%d", work, engine.name, n), func(b *testing.B) {
					race(b, native, engine.open(b), work, n)
				})
			}
		}
	}
}

func race(b *testing.B, native, kernel contestant, work string, n int) {
	b.SetBytes(int64(n))
	times := max(1, 1<<20/n)
	kernel(work, n, 4*times) // until the engine has made its best code of it
	var ratios []float64
	var spent time.Duration
	for done := 0; done < b.N || len(ratios) < 9; done += times {
		a, c := native(work, n, times), kernel(work, n, times)
		ratios = append(ratios, a.Seconds()/c.Seconds())
		spent += c
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "of-native")
	b.ReportMetric(spent.Seconds()*1e9/float64(len(ratios)*times), "ns/op")
	b.ReportMetric(float64(len(ratios)*times*n)/1e6/spent.Seconds(), "MB/s")
}

func timed(times int, f func()) time.Duration {
	begin := time.Now()
	for range times {
		f()
	}
	return time.Since(begin)
}

func nativeGo(b *testing.B) contestant {
	var nonce [chacha20poly1305.NonceSizeX]byte
	var aad [aadBytes]byte
	aead, err := chacha20poly1305.NewX(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20+tagSize)
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return func(work string, n, times int) time.Duration {
		if work == workCRC {
			return timed(times, func() { crc32.Checksum(buf[:n], castagnoli) })
		}
		return timed(times, func() { aead.Seal(buf[:0], nonce[:], buf[:n], aad[:]) })
	}
}

func inWazero(b *testing.B) contestant {
	m := newMachine(b, wazero.NewRuntimeConfig())
	return func(work string, n, times int) time.Duration {
		if work == workCRC {
			return timed(times, func() { m.crcAt(0, atBuffer, n) })
		}
		return timed(times, func() { m.sealAt(atBuffer, n, aadBytes) })
	}
}

func inV8(b *testing.B) contestant {
	node, err := exec.LookPath("node")
	if err != nil {
		b.Skip("no V8 (hint: install Node)")
	}
	module := filepath.Join(b.TempDir(), "kernel.wasm")
	if err := os.WriteFile(module, bare(), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), node, "testdata/v8.js", module,
		fmt.Sprint(atScratch), fmt.Sprint(atTable), fmt.Sprint(atKeys), fmt.Sprint(atAAD), fmt.Sprint(atBuffer))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewReader(out)
	return func(work string, n, times int) time.Duration {
		fmt.Fprintln(in, work, n, times)
		line, err := lines.ReadString('\n')
		ns, parseErr := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil || parseErr != nil {
			b.Fatal(err, parseErr)
		}
		return time.Duration(ns)
	}
}
