package cli

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// tryFlags are those of a change that goes back by itself.
type tryFlags struct {
	time            time.Duration
	confirm, revert string
	cmd             *cobra.Command
}

func (f *tryFlags) register(c *cobra.Command) {
	f.cmd = c
	c.Flags().DurationVar(&f.time, "try", 0, "set the old values back after this time (1s to 1h), unless confirmed")
	c.Flags().StringVar(&f.confirm, "confirm", "", "keep what was tried; the ID is what --try printed")
	c.Flags().StringVar(&f.revert, "revert", "", "set back at once what was tried")
	c.MarkFlagsMutuallyExclusive("try", "confirm", "revert")
	c.MarkFlagsMutuallyExclusive("scope", "confirm")
	c.MarkFlagsMutuallyExclusive("scope", "revert")
}

// ends reports whether a try is to be ended, not a change made.
func (f *tryFlags) ends() bool {
	return f.cmd.Flags().Changed("confirm") || f.cmd.Flags().Changed("revert")
}

func (f *tryFlags) args(c *cobra.Command, args []string) error {
	if f.ends() {
		return cobra.NoArgs(c, args)
	}
	return cobra.MinimumNArgs(2)(c, args)
}

// after is what goes into a request: nil is for good.
func (f *tryFlags) after() (*durationpb.Duration, error) {
	if !f.cmd.Flags().Changed("try") {
		return nil, nil
	}
	if f.time < time.Second || f.time > time.Hour {
		return nil, usagef("--try %v: want 1s to 1h", f.time)
	}
	return durationpb.New(f.time), nil
}

// endTry keeps or undoes what was tried.
func (a *app) endTry(ctx context.Context, f *tryFlags) error {
	request, did := &pb.ConfirmOptionsRequest{ChangeId: f.confirm}, "kept"
	if f.cmd.Flags().Changed("revert") {
		request, did = &pb.ConfirmOptionsRequest{ChangeId: f.revert, Revert: true}, "set back"
	}
	if request.GetChangeId() == "" {
		return usagef("the ID is empty: it is what --try printed")
	}
	api, err := a.dial()
	if err != nil {
		return err
	}
	resp, err := api.tuning.ConfirmOptions(ctx, request)
	if err != nil {
		return err
	}
	id := request.GetChangeId()
	return a.print(view{
		tree:  func() any { return tree(resp) },
		names: []string{id},
		text:  func(w *bytes.Buffer, _ bool) { fmt.Fprintf(w, "%s %s\n", id, did) },
	})
}

// tryTree is what JSON has beside the results.
func tryTree(resp *pb.SetOptionsResponse) object {
	if resp.GetChangeId() == "" {
		return nil
	}
	return tree(&pb.SetOptionsResponse{ChangeId: resp.GetChangeId(), RevertTime: resp.GetRevertTime()})[1:] // without results
}

// tellTry says when the old values come back, and how to keep the new ones.
func (a *app) tellTry(resp *pb.SetOptionsResponse) {
	id := clean(resp.GetChangeId())
	if id == "" || a.structured() {
		return
	}
	at := resp.GetRevertTime().AsTime()
	a.note("the old values come back at %s, in %v, unless they are confirmed", at.UTC().Format(time.RFC3339), at.Sub(a.env.Now()).Round(time.Second))
	a.tell("  keep  sockctl tune --confirm " + id + "\n  undo  sockctl tune --revert " + id + "\n")
}
