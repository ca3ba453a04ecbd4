package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sockmgr/sockmgr/cmd/sockctl/cli"
)

// commandPage is cli.md.
func commandPage() string {
	root := cli.Commands()
	var b strings.Builder
	b.WriteString("# sockctl, the client\n\n")
	paragraph(&b, root.Long)
	b.WriteString("`sockctl COMMAND --help` says the same as this page. How values are written is in\n" +
		"[options.md](options.md), what the reasons of errors mean in [errors.md](errors.md).\n\n")
	b.WriteString("Every command has these flags:\n\n")
	flags(&b, root.PersistentFlags().FlagUsages())
	b.WriteString("| command | |\n|---|---|\n")
	eachCommand(root, func(c *cobra.Command) {
		fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	})
	b.WriteByte('\n')
	eachCommand(root, func(c *cobra.Command) {
		fmt.Fprintf(&b, "## %s\n\n", c.CommandPath())
		paragraph(&b, c.Short+".")
		if c.Long != "" {
			paragraph(&b, c.Long)
		}
		fence(&b, "text", c.UseLine())
		if c.Example != "" {
			lines := strings.Split(c.Example, "\n")
			for i := range lines {
				lines[i] = strings.TrimPrefix(lines[i], "  ")
			}
			fence(&b, "sh", strings.Join(lines, "\n"))
		}
		flags(&b, c.NonInheritedFlags().FlagUsages())
	})
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// eachCommand walks all that do something, in the order of help.
func eachCommand(c *cobra.Command, f func(*cobra.Command)) {
	if c.HasParent() && !c.HasSubCommands() {
		f(c)
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			eachCommand(sub, f)
		}
	}
}

// paragraph writes text of which < and > must stay what they are.
func paragraph(b *strings.Builder, text string) {
	fmt.Fprintf(b, "%s\n\n", strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(text))
}

func flags(b *strings.Builder, usages string) {
	if usages != "" {
		fence(b, "text", strings.TrimRight(usages, "\n"))
	}
}

func fence(b *strings.Builder, language, text string) {
	fmt.Fprintf(b, "```%s\n%s\n```\n\n", language, text)
}
