package engine

import "golang.org/x/sys/unix"

func excludeFromDumps(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTDUMP) }
