"""Label the actions in recordings with a page in the browser: `karmma label`."""
