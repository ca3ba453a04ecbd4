package service

import (
	"context"
	"iter"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
	"github.com/sockmgr/sockmgr/manager"
)

// encodedFrom is how many changes an answer has that is encoded while it is made.
const encodedFrom = 256

// changesField is the number of the field of an answer.
var changesField = (&pb.ApplyListenersResponse{}).ProtoReflect().Descriptor().Fields().ByName("changes").Number()

// encodeChanges puts what has become of very many listeners into an answer as the bytes
// that are sent: each is encoded once it is made, by several goroutines and always in
// the same messages. Thousands of messages for one answer would be memory to be found,
// and read again when they are encoded. Protobuf sends bytes of fields that it was
// given as they are; who receives them sees changes as ever.
func encodeChanges(ctx context.Context, resp *pb.ApplyListenersResponse, applied []*manager.Applied) error {
	parts := make([][]byte, len(applied))
	notes := make([]int, len(applied)) // that each has for the audit
	var mu sync.Mutex
	var failed error
	manager.Spread(len(applied), func(some iter.Seq[int]) {
		words, m := fieldWords{again: true}, new(changeMessage)
		var block []byte
		for i := range some {
			*m = changeMessage{}
			c := changeToPB(applied[i], &words, m)
			notes[i] = notesOn(c)
			size := proto.Size(c)
			if room := protowire.SizeTag(changesField) + protowire.SizeBytes(size); cap(block)-len(block) < room {
				block = make([]byte, 0, max(room, encodeBlock))
			}
			begin := len(block)
			block = protowire.AppendVarint(protowire.AppendTag(block, changesField, protowire.BytesType), uint64(size))
			var err error
			if block, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(block, c); err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
				return
			}
			parts[i] = block[begin:]
		}
	})
	if failed != nil {
		return failed
	}
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	wire := make([]byte, 0, total)
	for _, p := range parts {
		wire = append(wire, p...)
	}
	resp.ProtoReflect().SetUnknown(wire)
	noteOf(ctx).addApplied(applied, notes)
	return nil
}

// encodeBlock is how many bytes are asked for at once.
const encodeBlock = 64 << 10

// notesOn is how much addChange adds to the audit.
func notesOn(c *pb.ListenerChange) (n int) {
	n = len(c.GetFields())
	if c.GetAction() != pb.ListenerChange_ACTION_UNCHANGED {
		n++
	}
	return n
}

// addApplied notes changes that no answer has as messages: those that there is room
// for, and how many more there are.
func (n *callNote) addApplied(applied []*manager.Applied, notes []int) {
	if n == nil {
		return
	}
	for i, a := range applied {
		if n.count(notes[i]) {
			continue
		}
		n.addChange(changeToPB(a, new(fieldWords), new(changeMessage)))
	}
}
