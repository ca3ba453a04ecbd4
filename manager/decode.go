package manager

import (
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
)

// decodeAll reads all records, given as name and value. Clients wait for it after
// a restart, so all processors take part.
func decodeAll(saved [][2][]byte) ([]Record, error) {
	records, errs := make([]Record, len(saved)), make([]error, len(saved))
	var workers sync.WaitGroup
	share := max(decodeLeast, (len(saved)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for from := 0; from < len(saved); from += share {
		workers.Go(func() {
			for i := from; i < min(from+share, len(saved)); i++ {
				records[i], errs[i] = decodeRecord(saved[i][0], saved[i][1])
			}
		})
	}
	workers.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("listener %q cannot be read: %w", saved[i][0], err)
		}
	}
	return records, nil
}

// decodeLeast is how many records are worth a goroutine.
const decodeLeast = 64

func decodeRecord(name, value []byte) (r Record, err error) {
	var text struct {
		*Record
		Stopped bool // how it was said before there were pauses
	}
	text.Record = &r
	if err := json.Unmarshal(value, &text); err != nil {
		return r, err
	}
	if text.Stopped {
		r.Desired = WantStopped
	}
	if r.Name != string(name) || r.Generation <= 0 || len(r.Spec.Listen) == 0 {
		return r, fmt.Errorf("it does not describe listener %q", name)
	}
	r.size = len(value)
	return r, checkName(r.Name)
}
