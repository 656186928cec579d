//go:build !linux

package stand

import (
	"errors"
	"time"
)

var errLinux = errors.New("other processes' time and memory are read from Linux alone")

// CPU is only known on Linux.
func CPU(int) (time.Duration, error) { return 0, errLinux }

// RSS is only known on Linux.
func RSS(int) (int64, error) { return 0, errLinux }
