package access

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// A Rule is one entry of the configuration: just one of User, Group and
// Certificate, and a role.
type Rule struct {
	User        string  `yaml:"user"`        // name or number
	Group       string  `yaml:"group"`       // name or number; also one of several that the caller is in
	Certificate string  `yaml:"certificate"` // uri:NAME, dns:NAME or email:NAME, as the certificate has it
	Role        string  `yaml:"role"`
	Policy      *Policy `yaml:"policy"` // nil: the role is not narrowed
}

// A Grant is what one rule gives.
type Grant struct {
	Role   Role
	Policy *Policy
	Rule   string // for people: access[1] (group ops)
}

// Rules say who may do what. They do not change.
type Rules struct {
	own   uint32 // the daemon's user
	rules []rule
}

type rule struct {
	uid, gid *uint32
	name     string // of a certificate
	grant    Grant
}

// NewRules checks rules. The user own has all rights, as root has.
func NewRules(own uint32, rules []Rule) (*Rules, error) {
	r := &Rules{own: own}
	var faults []error
	for i, one := range rules {
		compiled, err := one.compile(i)
		if err != nil {
			faults = append(faults, err)
		}
		r.rules = append(r.rules, compiled)
	}
	return r, errors.Join(faults...)
}

func (r Rule) compile(i int) (out rule, err error) {
	var faults []error
	bad := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("access[%d]: "+format, append([]any{i}, args...)...))
	}
	var who []string
	if r.User != "" {
		who = append(who, "user "+r.User)
		id, err := number(r.User, func() (string, error) {
			u, err := user.Lookup(r.User)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		if out.uid = &id; err != nil {
			bad("user %q is not known here: %w", r.User, err)
		}
	}
	if r.Group != "" {
		who = append(who, "group "+r.Group)
		id, err := number(r.Group, func() (string, error) {
			g, err := user.LookupGroup(r.Group)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		if out.gid = &id; err != nil {
			bad("group %q is not known here: %w", r.Group, err)
		}
	}
	if r.Certificate != "" {
		who = append(who, "certificate "+r.Certificate)
		kind, name, _ := strings.Cut(r.Certificate, ":")
		if !slices.Contains([]string{"uri", "dns", "email"}, kind) || name == "" {
			bad("certificate %q must be uri:NAME, dns:NAME or email:NAME, as the certificate's SAN has it", r.Certificate)
		}
		out.name = fold(kind, name)
	}
	if len(who) != 1 {
		bad("must have just one of user, group and certificate, and has %d", len(who))
	}
	role := slices.Index(Roles, r.Role)
	if role <= 0 {
		bad("role %q must be one of %s", r.Role, strings.Join(Roles[1:], ", "))
	}
	if r.Policy != nil {
		if err := r.Policy.compile(); err != nil {
			bad("policy: %w", err)
		}
	}
	out.grant = Grant{Role: Role(max(role, 0)), Policy: r.Policy, Rule: fmt.Sprintf("access[%d] (%s)", i, strings.Join(who, ", "))}
	return out, errors.Join(faults...)
}

// number is an id as a number; names are looked up.
func number(text string, lookup func() (string, error)) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		if text, err = lookup(); err != nil {
			return ^uint32(0), err
		}
		if id, err = strconv.ParseUint(text, 10, 32); err != nil {
			return ^uint32(0), err
		}
	}
	if uint32(id) == ^uint32(0) { // (uid_t)-1 is no user
		return ^uint32(0), fmt.Errorf("%d is nobody's id", id)
	}
	return uint32(id), nil
}

// fold writes a name of a certificate so that equal names are equal texts:
// DNS names have no case, nor has the host of an address.
func fold(kind, name string) string {
	switch kind {
	case "dns":
		name = strings.ToLower(name)
	case "email":
		if at := strings.LastIndexByte(name, '@'); at >= 0 {
			name = name[:at] + strings.ToLower(name[at:])
		}
	}
	return kind + ":" + name
}

// Grants returns what the identity was given; of rules that fit, all, in their
// order.
func (r *Rules) Grants(i Identity) []Grant {
	var all []Grant
	if i.IsUser && i.UID == 0 {
		all = append(all, Grant{Role: Admin, Rule: "root"})
	} else if i.IsUser && i.UID == r.own {
		all = append(all, Grant{Role: Admin, Rule: "the daemon's own user"})
	}
	for _, one := range r.rules {
		if one.fits(i) {
			all = append(all, one.grant)
		}
	}
	return all
}

func (r rule) fits(i Identity) bool {
	switch {
	case r.uid != nil:
		return i.IsUser && i.UID == *r.uid
	case r.gid != nil:
		return i.IsUser && slices.Contains(i.GIDs, *r.gid)
	case r.name == "":
		return false
	}
	return slices.ContainsFunc(i.Names, func(name string) bool {
		kind, rest, _ := strings.Cut(name, ":")
		return fold(kind, rest) == r.name
	})
}
