import sys

from ddpm_demo.cli import main

sys.exit(main())
