"""The Click modular router in Python: language, graph, scheduler, handlers."""
