package cli

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look what is missing on the daemon's host, and for which feature",
		Long: "doctor has the daemon look at the limits, sysctls and capabilities that it has, at its store and at its\n" +
			"listeners, and says what would mend what it finds. It ends with 1 if something does not work; a warning is\n" +
			"about what could be better, or what only some features need.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			resp, err := api.daemon.Diagnose(ctx, &pb.DiagnoseRequest{})
			if err != nil {
				return err
			}
			var names []string
			failed := false
			for _, f := range resp.GetFindings() {
				failed = failed || f.GetStatus() == pb.Finding_STATUS_FAILED
				if f.GetStatus() != pb.Finding_STATUS_OK {
					names = append(names, f.GetCheck())
				}
			}
			err = a.print(view{
				tree:  func() any { return list("findings", resp.GetFindings()) },
				names: names,
				text: func(w *bytes.Buffer, _ bool) {
					t := newTable("STATUS", "CHECK", "MESSAGE")
					for _, f := range resp.GetFindings() {
						message := f.GetMessage()
						if f.GetFix() != "" {
							message += "; try " + f.GetFix()
						}
						t.row(word(f.GetStatus()), f.GetCheck(), message)
					}
					t.write(w)
				},
			})
			if err == nil && failed {
				return &failure{exit: exitFailed, shown: true}
			}
			return err
		}),
	}
}
