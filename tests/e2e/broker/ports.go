package broker

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// StablePort is the first of n neighbouring ports of the loopback address that nobody listens
// on, outside the range from which Linux takes the ports of outgoing connections: they are
// still free after a restart.
func StablePort(n int) (int, error) {
	for range 100 {
		port := 20_000 + rand.IntN(10_000-n)
		free := true
		for p := port; free && p < port+n; p++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no %d neighbouring free ports from 20000 to 30000", n)
}
