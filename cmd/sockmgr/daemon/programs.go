package daemon

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sockmgr/sockmgr/listeners"
)

// programs are those of exec-allow. Of a flag and a variable each is a command
// line; in the file it may be a mapping, which can say more.
type programs listeners.Programs

// Set is pflag.Value.Set.
func (p *programs) Set(line string) error {
	program, err := listeners.ParseProgram(line)
	if err != nil {
		return err
	}
	*p = append(*p, program)
	return nil
}

// String is pflag.Value.String.
func (p *programs) String() string {
	texts := make([]string, len(*p))
	for i, program := range *p {
		texts[i] = program.String()
	}
	return strings.Join(texts, ", ")
}

// Type is pflag.Value.Type.
func (p *programs) Type() string { return "command" }

// UnmarshalYAML reads the list.
func (p *programs) UnmarshalYAML(list *yaml.Node) error {
	if list.Kind != yaml.SequenceNode {
		return fmt.Errorf("line %d: exec-allow must be a list", list.Line)
	}
	*p = nil
	for _, node := range list.Content {
		var err error
		if node.Kind == yaml.MappingNode {
			err = p.add(node)
		} else {
			var line string
			if err = node.Decode(&line); err == nil {
				err = p.Set(line)
			}
		}
		if err != nil {
			return fmt.Errorf("line %d: exec-allow: %w", node.Line, err)
		}
	}
	return nil
}

// programKeys are those of listeners.Program. A node does not know that its
// decoder wants to know all keys.
var programKeys = map[string]bool{"name": true, "command": true, "arguments": true, "environment": true, "directory": true, "user": true}

func (p *programs) add(node *yaml.Node) error {
	for i := 0; i < len(node.Content); i += 2 {
		if key := node.Content[i].Value; !programKeys[key] {
			return fmt.Errorf("there is no key %s", key)
		}
	}
	program := new(listeners.Program)
	if err := node.Decode(program); err != nil {
		return err
	}
	for _, other := range *p {
		if program.Name != "" && other.Name == program.Name {
			return fmt.Errorf("the name %s is given twice", program.Name)
		}
	}
	*p = append(*p, program)
	return program.Validate()
}
