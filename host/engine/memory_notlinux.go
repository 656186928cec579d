//go:build unix && !linux

package engine

func excludeFromDumps([]byte) {}
