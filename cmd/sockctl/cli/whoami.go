package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show who the daemon takes you for, and what you may do",
		Long: "whoami shows who the daemon takes you for, by your user or your certificate, and what its configuration\n" +
			"gives you: a role, and what narrows it. With several grants a request needs one that allows all of it.\n" +
			"-o wide lists the methods too.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			who, err := api.daemon.WhoAmI(ctx, &pb.WhoAmIRequest{})
			if err != nil {
				return err
			}
			return a.print(view{
				tree:  func() any { return tree(who) },
				names: []string{who.GetActor()},
				text: func(w *bytes.Buffer, wide bool) {
					s := &section{title: who.GetActor()}
					s.add("role", word(who.GetRole()))
					for _, g := range who.GetGrants() {
						s.add("by "+g.GetRule(), strings.Join(append([]string{word(g.GetRole())}, g.GetPolicy()...), "; "))
					}
					s.add("methods", fmt.Sprint(len(who.GetMethods())))
					if wide {
						s.add("may call", strings.Join(who.GetMethods(), ", "))
					}
					sections(w, s)
				},
			})
		}),
	}
}
