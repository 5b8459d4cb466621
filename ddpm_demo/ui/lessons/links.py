PAGE = ("tab", "t", "panes", "picture", "run", "view", "T")
