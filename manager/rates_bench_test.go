package manager

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/sockmgr/sockmgr/listeners"
)

// BenchmarkMeasure is what the rates of 10,000 listeners cost once a second.
func BenchmarkMeasure(b *testing.B) {
	for _, busy := range []bool{false, true} {
		b.Run(fmt.Sprintf("busy=%v", busy), func(b *testing.B) {
			m, err := New(Config{Poller: "epoll", Log: hclog.NewNullLogger()})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := m.Shutdown(b.Context(), 0); err != nil {
					b.Error(err)
				}
			}()
			all := make([]*entry, 10_000)
			for i := range all {
				all[i] = &entry{stats: &listeners.Counters{}}
			}
			readings := make([]reading, rateBudget)
			for b.Loop() {
				for chunk := range slices.Chunk(all, rateBudget) {
					if busy {
						for _, e := range chunk {
							e.stats.Accepted++
						}
					}
					if err := m.measureSome(chunk, readings); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
