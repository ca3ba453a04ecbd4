package manager_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sockmgr/sockmgr/listeners"
	"github.com/sockmgr/sockmgr/manager"
)

// BenchmarkCreate opens and deletes listeners, in memory and with a store, one
// caller after the other and many at once.
func BenchmarkCreate(b *testing.B) {
	for _, store := range []string{"memory", "disk"} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", store, callers), func(b *testing.B) {
				dir := ""
				if store == "disk" {
					dir = b.TempDir()
				}
				m, err := manager.New(manager.Config{Poller: "epoll", StateDir: dir, Log: quiet})
				if err != nil {
					b.Fatal(err)
				}
				var n atomic.Int64
				b.SetParallelism(callers)
				b.ReportAllocs()
				work := func() error {
					name := fmt.Sprintf("l%d", n.Add(1))
					d := manager.Draft{Listen: []string{"tcp://127.0.0.1:0"}, Handler: listeners.Echo{}}
					if _, _, err := m.Create(b.Context(), name, d, false); err != nil {
						return err
					}
					_, err := m.Delete(b.Context(), name, "", 0, false)
					return err
				}
				if callers == 1 {
					for b.Loop() {
						if err := work(); err != nil {
							b.Fatal(err)
						}
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := work(); err != nil {
								b.Error(err)
							}
						}
					})
				}
				b.StopTimer()
				if err := m.Shutdown(b.Context(), 0); err != nil {
					b.Error(err)
				}
			})
		}
	}
}
