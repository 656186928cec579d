// Command traffic counts what the exchange of keys costs: bytes written to the control topics
// and read from them, processor time and memory of an agent, for fleets of several sizes
// (PROTOCOL.md §5, V-10). The keys, signatures and records are host/keyring's own, in virtual
// time at the default periods, and a record counts as what Kafka stores for it. A test holds
// the count against real agents.
//
// With -away it measures instead what a consumer does first that was offline for so long.
package main

import (
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// topics is how many topics every fleet produces and consumes.
const topics = 20

func main() {
	hours := flag.Float64("hours", 1, "virtual hours of each fleet")
	away := flag.Duration("away", 0, "measure instead a consumer that comes back after this time, on a real Kafka")
	flag.Parse()
	var err error
	if *away > 0 {
		err = catchUp(*away)
	} else {
		err = table(time.Duration(*hours * float64(time.Hour)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func table(length time.Duration) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "consumers\tproducers\tgrants MB/h\tread MB/h\troster MB/h\tread MB/h\tproducer CPU s/h\tMB\tconsumer CPU s/h\tMB\t")
	var last *cost
	for _, producers := range []int{1, 20} {
		for _, consumers := range []int{1, 50, 500} {
			c, err := measure(shape{consumers, producers, keyring.DefaultTiming()}, length)
			if err != nil {
				return fmt.Errorf("%d consumers, %d producers: %w", consumers, producers, err)
			}
			fmt.Fprintf(w, "%d\t%d\t%.2f\t%.1f\t%.2f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t\n", consumers, producers,
				c.perHour(c.grants), c.perHour(c.grantsRead), c.perHour(c.roster), c.perHour(c.rosterRead),
				c.seconds(c.producerCPU), float64(c.producerHeap)/1e6, c.seconds(c.consumerCPU), float64(c.consumerHeap)/1e6)
			last = c
		}
	}
	w.Flush()
	fmt.Printf("%d topics with equal recipients, default periods. MB are 10^6 bytes in the log, once, without replicas; read is all nodes together.\n", topics)
	fmt.Printf("CPU and memory are those of one agent's keys, without its Kafka client. A wrap takes %v, opening a grant %v.\n",
		each(last.wrapping, last.wraps), each(last.opening, last.opens))
	const week = 7 * 24 * 20 // epochs of one topic and producer
	held := 20 * topics * week
	fmt.Printf("An epoch of a topic that is not consumed yet holds %d B of memory and %d B of the state file; a week of 20 producers is %d of them, where a node holds at most %d.\n",
		last.perSecret, last.perSecretFile, held, 1<<20)
	return nil
}
