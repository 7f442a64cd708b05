"""PYTHON jaxtbpr/workers/worker FOLDER: answers the tasks of a folder, alone or among others.

Start as many as there are GPUs, on as many machines as see the folder.
"""

# By its path this folder is not a package, and `answering` stands beside this file.
from answering.serve import main

if __name__ == "__main__":
    main()
