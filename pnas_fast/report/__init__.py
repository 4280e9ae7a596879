"""What a person sees of a search: ``report.html`` and its figures; `page` has what writes them."""
