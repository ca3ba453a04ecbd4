package listeners

import (
	"container/list"
	"time"

	"github.com/sockmgr/sockmgr/mux"
)

const (
	// gateQuantum is the most that one connection moves in its turn.
	gateQuantum = 64 << 10
	// gateTurns is how many connections go on in one turn of the loop.
	gateTurns = 64
)

// A gate keeps all connections of a listener together to a rate, in one
// direction. When it has none left, they wait in a line: each moves a bit, and
// goes to the end of it, so that none is left out. Loop only.
type gate struct {
	l       *Listener
	d       direction
	bucket  bucket
	waiting list.List // of *pace
	timer   mux.Timer
}

// openGates makes the gates. They stay, also when there is no rate any more.
func (l *Listener) openGates() {
	if l.gates != nil || l.paced.all == ([directions]rate{}) {
		return
	}
	l.gates = new([directions]gate)
	for d := range directions {
		l.gates[d].l, l.gates[d].d = l, d
	}
}

// quantum is what one connection moves in its turn.
func (r rate) quantum() int64 { return max(1, min(r.most()/8, gateQuantum)) }

// room is how many bytes may move for p now.
func (g *gate) room(p *pace, r rate, now time.Duration) int64 {
	if g.waiting.Len() > 0 && !p.granted[g.d] {
		return 0
	}
	return min(r.room(&g.bucket, now), r.quantum())
}

// queue puts p at the end of the line.
func (g *gate) queue(p *pace) {
	if p.place[g.d] == nil {
		p.granted[g.d] = false
		p.place[g.d] = g.waiting.PushBack(p)
	}
	g.arm()
}

func (g *gate) arm() {
	if r := g.l.paced.all[g.d]; r > 0 && !g.timer.Set() && g.waiting.Len() > 0 {
		g.l.set.loop.Arm(&g.timer, r.enough(&g.bucket), g)
	}
}

// Expired lets the first of the line go on, as many as there is room for.
func (g *gate) Expired() {
	r := g.l.paced.all[g.d]
	if r == 0 {
		return // all have been told
	}
	now := g.l.set.loop.Clock()
	if now < r.enough(&g.bucket) {
		g.arm() // those of the last turn have had it: nobody shall lose his place for nothing
		return
	}
	n := max(1, r.room(&g.bucket, now)/r.quantum())
	for range min(n, gateTurns) {
		first := g.waiting.Front()
		if first == nil {
			return
		}
		p := g.waiting.Remove(first).(*pace)
		p.place[g.d], p.granted[g.d] = nil, true
		p.c.resume()
	}
	g.arm()
}
