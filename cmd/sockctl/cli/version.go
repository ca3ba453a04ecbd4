package cli

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/sockmgr/sockmgr/gen/sockmgr/v1"
)

// Version is the client's version, set by the linker with
// -X github.com/sockmgr/sockmgr/cmd/sockctl/cli.Version=1.4.0.
var Version string

// clientVersion is Version, or what the build knows of itself.
func clientVersion() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Show the version of sockctl, and of the daemon when it answers",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			api, err := a.dial()
			if err != nil {
				return err
			}
			quick, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			// A daemon that does not answer is an answer.
			resp, err := api.daemon.GetDaemonInfo(quick, &pb.GetDaemonInfoRequest{})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			info := resp.GetInfo()
			return a.print(view{
				tree: func() any {
					t := object{{"client", object{{"version", clientVersion()}, {"goVersion", runtime.Version()}}}}
					if err == nil {
						t = append(t, member{"daemon", tree(info)})
					}
					return t
				},
				names: []string{clientVersion()},
				text: func(w *bytes.Buffer, _ bool) {
					daemon := info.GetVersion()
					if err != nil {
						daemon = "no answer"
					}
					layOut(w, "", [][]string{
						{"sockctl", clean(clientVersion())},
						{"sockmgr", clean(daemon + " (" + api.addr + ")")},
					})
				},
			})
		}),
	}
}
