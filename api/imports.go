package api

import (
	"context"

	"github.com/gofiber/fiber/v2"

	"github.com/signpost/signpost/internal/service"
)

// Import is a file that is being imported or was.
type Import = service.Import

type (
	importOutput       struct{ Body Import }
	importDetailOutput struct{ Body service.ImportDetail }
	undoPreviewOutput  struct{ Body service.UndoPreview }
	importRowsInput    struct {
		IDInput
		PageInput
	}
)

// listImports lists imports, newest first.
func (a *API) listImports(ctx context.Context, in *PageInput) (*listOutput[Import], error) {
	return listRows(ctx, in, "imports", a.service.ListImports, func(i Import) int64 { return i.ID })
}

func (a *API) getImport(ctx context.Context, in *IDInput) (*importDetailOutput, error) {
	detail, err := a.service.GetImport(ctx, actorIn(ctx), in.ID)
	return &importDetailOutput{detail}, err
}

// listImportRows returns the handler of a list of rows of an import, which is in file
// order.
func listImportRows[T any](
	name string, list func(context.Context, Actor, int64, service.Page) ([]T, error), line func(T) int64,
) func(context.Context, *importRowsInput) (*listOutput[T], error) {
	return func(ctx context.Context, in *importRowsInput) (*listOutput[T], error) {
		ofImport := func(ctx context.Context, actor Actor, p service.Page) ([]T, error) { return list(ctx, actor, in.ID, p) }
		return listRows(ctx, &in.PageInput, name, ofImport, line)
	}
}

// changeImport returns the handler of a request that changes what becomes of an import.
func changeImport(change func(context.Context, Actor, int64) (Import, error)) func(context.Context, *IDInput) (*importOutput, error) {
	return func(ctx context.Context, in *IDInput) (*importOutput, error) {
		changed, err := change(ctx, actorIn(ctx), in.ID)
		return &importOutput{changed}, err
	}
}

func (a *API) previewUndo(ctx context.Context, in *IDInput) (*undoPreviewOutput, error) {
	preview, err := a.service.PreviewUndo(ctx, actorIn(ctx), in.ID)
	return &undoPreviewOutput{preview}, err
}

// importErrorsAsCSV answers GET /imports/{id}/errors in CSV, if that is asked for: a
// file to be mended and uploaded again.
func (a *API) importErrorsAsCSV(c *fiber.Ctx) error {
	asked, err := wantsCSV(c)
	if err == nil && !asked {
		return c.Next()
	}
	if admitErr := a.admit(c, service.ReadsImports); admitErr != nil {
		return admitErr
	}
	if err != nil {
		return err
	}
	return a.exportOfImport(c, a.service.ExportImportErrors)
}

// wantsCSV reports whether a request asks for CSV instead of JSON: with the parameter
// format, or else with Accept.
func wantsCSV(c *fiber.Ctx) (bool, error) {
	c.Vary(fiber.HeaderAccept)
	switch c.Query("format") {
	case "csv":
		return true, nil
	case "json":
		return false, nil
	case "":
		return preferredFormat(c.Request().Header.Peek(fiber.HeaderAccept)) == formatCSV, nil
	}
	return false, invalid("format", "must be json or csv")
}

// importResult answers with the outcome of each row of an import, in file order.
func (a *API) importResult(c *fiber.Ctx) error {
	return a.exportOfImport(c, a.service.ExportImportResult)
}

// exportOfImport answers with a CSV file about the import in the path of a request.
func (a *API) exportOfImport(c *fiber.Ctx, export func(context.Context, Actor, int64) (service.Export, error)) error {
	c.Set(fiber.HeaderCacheControl, "no-store")
	id, err := idParam(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.UserContext(), requestTimeout)
	defer cancel()
	c.SetUserContext(ctx) // for the first piece; the others have their own time limit
	source, err := export(ctx, actorOf(c), id)
	if err != nil {
		return err
	}
	a.export(c, source, formatCSV, everyRow)
	return nil
}
