"""The tab about the playground itself."""
