// Referrers as other people see them: a registry that lists them itself, and a reader of lists.
//
//	referrers serve ADDRESS    a registry in memory
//	referrers list IMAGE       what is about each manifest of an image: subject, media type and digest of the document
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	if os.Args[1] == "serve" {
		log.Fatal(http.ListenAndServe(os.Args[2], registry.New(registry.WithReferrersSupport(true))))
	}
	if err := list(os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func list(image string) error {
	reference, err := name.ParseReference(image, name.Insecure)
	if err != nil {
		return err
	}
	top, err := remote.Get(reference)
	if err != nil {
		return err
	}
	subjects := []string{top.Digest.String()}
	if top.MediaType == types.OCIImageIndex {
		index, err := top.ImageIndex()
		if err != nil {
			return err
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return err
		}
		for _, inner := range manifest.Manifests {
			subjects = append(subjects, inner.Digest.String())
		}
	}
	for _, subject := range subjects {
		about, err := remote.Referrers(reference.Context().Digest(subject))
		if err != nil {
			return err
		}
		found, err := about.IndexManifest()
		if err != nil {
			return err
		}
		for _, one := range found.Manifests {
			document, err := remote.Image(reference.Context().Digest(one.Digest.String()))
			if err != nil {
				return err
			}
			layers, err := document.Layers()
			if err != nil {
				return err
			}
			digest, err := layers[0].Digest()
			if err != nil {
				return err
			}
			kind, err := layers[0].MediaType()
			if err != nil {
				return err
			}
			fmt.Println(subject, kind, digest)
		}
	}
	return nil
}
