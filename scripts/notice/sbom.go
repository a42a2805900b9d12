package main

import (
	"encoding/json"
	"strings"
)

// A bill of materials in the JSON of CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/). It has no serial number and
// no time: the same source gives the same bytes.

type bill struct {
	Format      string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Version     int         `json:"version"`
	Metadata    metadata    `json:"metadata"`
	Components  []component `json:"components"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type     string    `json:"type"`
	Ref      string    `json:"bom-ref"`
	Name     string    `json:"name"`
	Version  string    `json:"version,omitempty"`
	Licenses []licence `json:"licenses,omitempty"`
	PURL     string    `json:"purl,omitempty"`
}

// licence is one of SPDX's, by its id, or another one by its name.
type licence struct {
	License struct {
		ID   string `json:"id,omitempty"`
		Name string `json:"name,omitempty"`
	} `json:"license"`
}

// sbom describes muster in a version.
func sbom(version string) (string, error) {
	parts, err := linked()
	if err != nil {
		return "", err
	}
	b := bill{
		Format:      "CycloneDX",
		SpecVersion: "1.6",
		Version:     1,
		Metadata:    metadata{component{Type: "application", Ref: "muster", Name: "muster", Version: version}},
		Components:  []component{},
	}
	for _, p := range parts {
		if strings.HasPrefix(p.name, "the text of ") {
			continue
		}
		kind, err := p.kind()
		if err != nil {
			return "", err
		}
		c := component{
			Type:     "library",
			Ref:      p.name,
			Name:     p.name,
			Version:  p.version,
			Licenses: []licence{{}},
		}
		if spdx(kind) {
			c.Licenses[0].License.ID = kind
		} else {
			c.Licenses[0].License.Name = kind
		}
		if p.dir != "" {
			c.PURL = "pkg:golang/" + p.name + "@" + p.version
			c.Ref = c.PURL
		}
		b.Components = append(b.Components, c)
	}
	text, err := json.MarshalIndent(b, "", "  ")
	return string(text) + "\n", err
}

// spdx reports whether a kind of licence is the identifier of one.
func spdx(kind string) bool {
	for _, k := range kinds {
		if k.name == kind && !strings.HasPrefix(kind, "LGPL") {
			return true
		}
	}
	return false
}
