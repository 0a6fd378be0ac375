/* The pages of all commands. */
#include "manual.h"
#include "mdm/base/text.h"
#include <stddef.h>
#include <string.h>

static const mdm_manual pages[] = {
    {.name = "train",
     .summary = "train on a noisy data set (the default command)",
     .usage = "[CONFIG.yaml] [key=value ...] [options]",
     .text =
         "Trains as the config says; without CONFIG the built-in quickstart. Start under mpirun or srun for "
         "several ranks. The same command goes on from the last checkpoint of its run folder.",
     .words = MDM_WORD_CONFIG | MDM_WORD_KEY,
     .options =
         {{"--help-config", NULL, "every key with its default, range and meaning"},
          {"--print-config", NULL, "the settings as resolved, and stop"},
          {"--dry-run", NULL,
           "check settings, data, memory and a used run folder, take one step of every stage, write nothing"},
          {"--force", NULL, "begin afresh in a folder that holds a run"}},
     .examples = {"mdm-dist configs/quickstart.yaml run=runs/first train.epochs=5",
                  "mpirun -np 4 mdm-dist configs/cifar100.yaml data.train=cifar100-noisy.h5",
                  "mdm-dist train my.yaml --dry-run"}},
    {.name = "data import",
     .summary = "make a data set file from pictures and labels as they come",
     .usage = "SOURCE OUT.h5 [options]",
     .text =
         "SOURCE is a folder with IDX files (MNIST's names) or CIFAR-10/100 (binary or Python's files), or "
         "CIFAR's .tar.gz as it was fetched; a folder of class folders with JPEG and PNG files, or with "
         "train/ and test/ or val/ of them; a "
         "list file with lines `path label`, or CSV; or a folder with metadata.csv or metadata.jsonl. "
         "An import of pictures that was stopped goes on when the same command is given again.",
     .words = MDM_WORD_FILE,
     .options =
         {{"--format", "idx|cifar10|cifar100|folder|list|metadata", "what SOURCE is [recognised]"},
          {"--size", "N",
           "scale the shorter side to N (as Pillow's BILINEAR), cut N x N out of the middle [no "
           "scaling: all pictures must have one size]"},
          {"--keep-encoded", NULL,
           "store the JPEG and PNG files; they are decoded, scaled and cut while training"},
          {"--classes", "FILE", "class names, one a line: fixes their order [sorted by name]"},
          {"--test", "FOLDER",
           "class folders of test pictures [test, val, valid or validation beside train]"},
          {"--root", "FOLDER", "where the paths of a list start [the list's folder]"},
          {"--labels", "FILE", "`path label` lines for a list of paths alone"},
          {"--test-list", "FILE", "list of test pictures"},
          {"--test-root", "FOLDER", "where its paths start [--root, or the list's folder]"},
          {"--test-labels", "FILE", "labels for its paths [--labels]"},
          {"--file-column", "NAME",
           "column of the paths in metadata or a list with a header line [file_name; in lists also "
           "path, file, image and the like]"},
          {"--label-column", "NAME", "column of the labels [label, labels, class or category]"},
          {"--numbers-are-names", NULL,
           "labels that are numbers name classes, sorted by number: for labels that begin at 1 or have "
           "gaps"},
          {"--on-error", "fail|skip", "what an unreadable picture does; skipped ones are listed [fail]"},
          {"--threads", "N", "decoding threads [all processors]"},
          {"--force", NULL, "overwrite OUT.h5"}},
     .examples =
         {"mdm-dist data import /usr/share/datasets/fashion-mnist fashion.h5",
          "mdm-dist data import my-pictures mine.h5 --size 64 --on-error skip",
          "mdm-dist data import train_list.txt web.h5 --root images --test-list val_list.txt --size 224 "
          "--keep-encoded"}},
    {.name = "data noise",
     .summary = "write a copy with label noise and the truth beside it, for experiments",
     .usage = "IN.h5 OUT.h5 [options]",
     .text = "",
     .words = MDM_WORD_FILE,
     .options = {{"--samples", "N", "random subset of so many training samples [all]"},
                 {"--symmetric", "R", "share of samples whose label is drawn anew among all classes"},
                 {"--exclude-own", NULL, "... among the other classes only"},
                 {"--asymmetric", "R",
                  "share whose label moves to a similar class (CIFAR-10 pairs, CIFAR-100 cycles)"},
                 {"--transition-matrix", "FILE",
                  "... or by this text file of C x C numbers (row: true class)"},
                 {"--ood", "R", "share of samples that belong to no class"},
                 {"--hold-out", "8,9", "... pictures of these classes, which leave the label set"},
                 {"--ood-from", "FILE", "... or pictures of another file; replaced samples keep their label"},
                 {"--noise-file", "FILE", "take the labels from this JSON list instead"},
                 {"--write-noise-file", "FILE", "write the labels as a JSON list"},
                 {"--seed", "S", "of the draws [1]"},
                 {"--force", NULL, "overwrite OUT.h5, and the file of --write-noise-file"},
                 {"--json", NULL, "print the counts as JSON"}},
     .examples =
         {"mdm-dist data noise fashion.h5 noisy.h5 --samples 5000 --hold-out 8,9 --ood 0.2 --symmetric "
          "0.4",
          "mdm-dist data noise cifar10.h5 noisy.h5 --asymmetric 0.4 --seed 2"}},
    {.name = "data info",
     .summary = "what a file holds, and whether it is sound (exit code 3 when not)",
     .usage = "FILE.h5 [--json]",
     .text = "",
     .words = MDM_WORD_FILE,
     .options = {{"--json", NULL, "print it as JSON"}},
     .examples = {"mdm-dist data info noisy.h5"}},
    {.name = "data verify",
     .summary = "read and decode every picture (exit code 3 when one is damaged)",
     .usage = "FILE.h5 [--json]",
     .text = "",
     .words = MDM_WORD_FILE,
     .options = {{"--json", NULL, "print it as JSON"}},
     .examples = {"mdm-dist data verify mine.h5"}},
    {.name = "eval",
     .summary = "accuracy, per class and confused, of a run's networks",
     .usage = "RUN [DATA.h5] [options]",
     .text =
         "Accuracy of the mean prediction of the run's networks (averaged weights where the run averaged "
         "them): first and among the first five, per class, and the confusion matrix (row: true class). "
         "DATA.h5 defaults to the run's own test set. Under mpirun the ranks share the pictures. It computes "
         "in "
         "single precision: after a run in bf16 a few pictures may be judged otherwise than in its summary.",
     .words = MDM_WORD_RUN | MDM_WORD_FILE,
     .options = {{"--split", "test|train",
                  "test set, or training set against its true labels where the file has them, else against "
                  "the given ones [test]"},
                 {"--json", NULL, "one JSON object on stdout"}},
     .examples = {"mdm-dist eval runs/quickstart",
                  "mpirun -np 2 mdm-dist eval runs/quickstart other.h5 --json"}},
    {.name = "predict",
     .summary = "class, confidence and out-of-distribution flag of new pictures",
     .usage = "RUN IMAGES ... [options]",
     .text =
         "Class and confidence by the mean prediction of the run's networks, and whether the pictures look "
         "like those that the run kept. IMAGES are JPEG and PNG files, folders of them, data set files "
         "(.h5: the test pictures, or the training pictures where there are no others), or - for one path "
         "a line on stdin. Pictures of another size are scaled until they cover the run's, and cut out of "
         "the middle. One that cannot be read is told and left out; the exit code is then 3. "
         "out_of_distribution: the mean cosine distance of the picture's embedding to those of the "
         "divide.k nearest training pictures (of at most 4096 that the division kept, with "
         "divide.ood_neighbours=clean that it labelled), divided by the network's threshold, mean over the "
         "networks, is above 1. The threshold is the score that the same share of training pictures exceeds "
         "as the run removed. Embeddings are by the final networks, with divide.ood_scores=first by those of "
         "the first division.",
     .words = MDM_WORD_RUN | MDM_WORD_FILE,
     .options = {{"--csv", "FILE",
                  "rows of path,class,name,confidence,ood_score,out_of_distribution; - is stdout"},
                 {"--json", NULL, "one JSON object a line on stdout, with all probabilities"}},
     .examples = {"mdm-dist predict runs/quickstart photos/ --csv answers.csv",
                  "find . -name '*.png' | mdm-dist predict runs/quickstart - --json",
                  "mdm-dist predict runs/quickstart new.h5"}},
    {.name = "export",
     .summary = "weights, cleaned labels and lists for other programs",
     .usage = "RUN (--safetensors|--onnx|--csv|--list) FILE [options]",
     .text = "FILE - is stdout, for --csv and --list.",
     .words = MDM_WORD_RUN | MDM_WORD_FILE,
     .options = {{"--safetensors", "FILE",
                  "weights under PyTorch's names; docs/weights.md shows how to load them"},
                 {"--onnx", "FILE",
                  "ONNX, operator set 13, any batch size: input pictures, float of 0 to 255, "
                  "[batch,channels,H,W]; outputs logits (of two networks logits_a, logits_b) and "
                  "probabilities"},
                 {"--network", "a|b|ensemble", "which network [a; the ensemble of all for --onnx]"},
                 {"--csv", "FILE", "rows of labels.csv that pass the filters"},
                 {"--list", "FILE",
                  "cleaned `path label` lines: the given label where the verdict is clean, the suggested one "
                  "where it is mislabelled; out-of-distribution samples are left out. The path is the "
                  "sample's id, or its number where the data set has no ids"},
                 {"--labels", "FILE",
                  "a copy of labels.csv that a person has corrected, in place of the run's: verdicts, and "
                  "suggested classes by their numbers"},
                 {"--names", NULL, "class names instead of numbers"},
                 {"--drop-mislabelled", NULL, "leaves those out, too, instead of relabelling them"},
                 {"--min-clean", "P", "only rows with a clean_probability of at least P"},
                 {"--max-clean", "P", "... of at most P"},
                 {"--max-ood", "S", "only rows with an ood_score of at most S"},
                 {"--verdict", "clean|mislabelled|out_of_distribution", "only rows of this verdict"}},
     .examples = {"mdm-dist export runs/quickstart --list cleaned.txt",
                  "mdm-dist export runs/quickstart --csv - --verdict mislabelled --max-clean 0.1",
                  "mdm-dist export runs/quickstart --safetensors model.safetensors --network b",
                  "mdm-dist export runs/quickstart --onnx model.onnx"}},
    {.name = "bench",
     .summary = "measure steps, KNN, GMM, augmentation, reading, all-reduce",
     .usage = "MEASUREMENT [key=value ...]",
     .text =
         "Prints one JSON line a measurement. Networks see 32x32 colour pictures of 100 classes; the keys "
         "that matter are model.arch, model.width, train.batch, train.precision, run.threads, divide.k, "
         "divide.ood_neighbours (clean: every other sample counts as clean), and data.train for io. "
         "images_per_s counts labelled pictures for semi, samples for knn and gmm, views "
         "for augment, which a CUDA device also normalises. Under mpirun the ranks work together; step then "
         "also tells what a step of each rank alone takes (alone_median_ms), and which share of the ranks' "
         "step is more than that (exposed_percent): communication that no computation hides. allreduce sums "
         "messages of several sizes, the last that of the network's gradient, by NCCL between CUDA devices "
         "(bytes, gbyte_per_s, by). ceilings measures what the device can do at best: copies within its "
         "memory (copy; gbyte_per_s counts bytes read and written) and a large product (product, "
         "gflop_per_s; on CPUs in single precision, which bf16 convolutions pass).",
     .words = MDM_WORD_KEY,
     .choices = "ceilings|step|semi|pretrain|knn|gmm|augment|io|allreduce|all",
     .examples = {"mdm-dist bench step model.width=64 train.batch=64",
                  "mpirun -np 2 mdm-dist bench all train.precision=bf16"}},
    {.name = "doctor",
     .summary = "check ranks, hosts, cores, libraries and the links between ranks",
     .usage = "[RUN] [--json]",
     .text =
         "Says what is wrong and how to mend it; exit code 0 when sound, 4 when something would stop a run. "
         "Start it exactly as the run will be started: under the same mpirun or srun. With RUN it also "
         "looks at that run folder: space, lock, and what the ranks did last before a run was lost.",
     .words = MDM_WORD_RUN,
     .options = {{"--json", NULL, "print everything as one JSON object"}},
     .examples = {"mdm-dist doctor", "mpirun -np 4 --bind-to none mdm-dist doctor",
                  "srun --mpi=pmix -N 2 --ntasks-per-node=2 mdm-dist doctor runs/first --json"}},
    {.name = "status",
     .summary = "how far a run is, whether it is alive, and its last message",
     .usage = "RUN [--json]",
     .text = "Reads the run folder and changes nothing in it; safe while the run goes on. Exit code 3 when "
             "there is "
             "no run in RUN.",
     .words = MDM_WORD_RUN,
     .options = {{"--json", NULL, "print it as one JSON object"}},
     .examples = {"mdm-dist status runs/quickstart", "watch mdm-dist status runs/quickstart"}},
    {.name = "report",
     .summary = "write a run's report.html, or a page that compares runs",
     .usage = "RUN [RUN ...] [--out FILE]",
     .text =
         "One page in one file, to be opened in a browser: accuracy, losses, divisions, the pictures whose "
         "labels "
         "are most surely wrong, and the strangest ones. Of several runs: their figures side by side. A run "
         "under way may be reported on, too.",
     .words = MDM_WORD_RUN,
     .options = {{"--out", "FILE", "where to write [RUN/report.html; of several runs comparison.html]"}},
     .examples = {"mdm-dist report runs/quickstart",
                  "mdm-dist report runs/first runs/second --out both.html"}},
    {.name = "slurm",
     .summary = "print an sbatch file for a run, each line explained",
     .usage = "[CONFIG.yaml] [key=value ...] [options]",
     .text = "The settings are checked as train checks them; nothing is submitted.",
     .words = MDM_WORD_CONFIG | MDM_WORD_KEY,
     .options = {{"--nodes", "N", "nodes [1]"},
                 {"--ranks", "N", "ranks on each node [1; with --gpus as many as GPUs]"},
                 {"--cpus", "N", "cores of each rank [8]"},
                 {"--gpus", "N", "GPUs on each node [0]"},
                 {"--time", "LIMIT", "as Slurm writes it: minutes, H:MM:SS, D-HH or D-HH:MM:SS [24:00:00]"},
                 {"--memory", "SIZE", "memory of each node, as in 64G [what the site gives]"},
                 {"--partition", "NAME", "partition [the site's default]"},
                 {"--account", "NAME", "account [yours by default]"},
                 {"--name", "NAME", "job name [mdm-dist]"},
                 {"--launcher", "pmix|mpirun", "srun --mpi=pmix, or mpirun inside the allocation [pmix]"},
                 {"--lead", "SECONDS", "how long before the time limit the run is told to save [180]"}},
     .examples =
         {"mdm-dist slurm configs/cifar10.yaml run=runs/night --nodes 2 --ranks 2 --cpus 16 --time 8:00:00 "
          "> job.sbatch",
          "mdm-dist slurm my.yaml --launcher mpirun | sbatch"}},
    {.name = "completion",
     .summary = "print the completion of a shell",
     .usage = "bash|zsh|fish",
     .text = "",
     .choices = "bash|zsh|fish",
     .examples = {"source <(mdm-dist completion bash)", "mdm-dist completion zsh > \"${fpath[1]}/_mdm-dist\"",
                  "mdm-dist completion fish > ~/.config/fish/completions/mdm-dist.fish"}},
    {.name = "man",
     .summary = "print the manual page of the program or of one command",
     .usage = "[COMMAND] [--list]",
     .text = "In the language of man; building leaves all pages in the build folder, generated/man.",
     .hidden = 1,
     .options = {{"--list", NULL, "the names of the commands that have a page, one a line"}},
     .examples = {"mdm-dist man doctor | man -l -"}},
};
enum { PAGES = sizeof pages / sizeof *pages };

int mdm_manual_count(void) {
    return PAGES;
}

const mdm_manual *mdm_manual_at(int index) {
    return &pages[index];
}

const mdm_manual *mdm_manual_find(const char *first, const char *second, int *group) {
    size_t length = strlen(first);
    *group = 0;
    for (int i = 0; i < PAGES; i++) {
        const char *name = pages[i].name;
        if (strcmp(name, first) == 0) return &pages[i];
        if (strncmp(name, first, length) != 0 || name[length] != ' ') continue;
        *group = 1;
        if (second && strcmp(name + length + 1, second) == 0) return &pages[i];
    }
    return NULL;
}

/* The first words of the pages, each once. */
static int list_commands(const char **names, char storage[PAGES][32]) {
    int count = 0;
    for (int i = 0; i < PAGES; i++) {
        size_t length = strcspn(pages[i].name, " ");
        memcpy(storage[count], pages[i].name, length);
        storage[count][length] = 0;
        if (count > 0 && strcmp(storage[count], storage[count - 1]) == 0) continue;
        names[count] = storage[count];
        count++;
    }
    return count;
}

mdm_status mdm_manual_refuse_command(const char *word) {
    const char *names[PAGES];
    char storage[PAGES][32], quoted[128];
    int count = list_commands(names, storage);
    const char *near = mdm_nearest_name(word, names, count);
    return mdm_fail(MDM_USAGE, "there is no command '%s'%s%s%s; mdm-dist --help lists them",
                    mdm_printable(word, quoted, sizeof quoted), near ? "; did you mean '" : "",
                    near ? near : "", near ? "'" : "");
}

mdm_status mdm_manual_refuse_option(const char *command, const char *option) {
    const char *names[MDM_MANUAL_MOST_OPTIONS + 1] = {"--help"};
    int count = 1, group;
    char quoted[128], first[32];
    size_t length = strcspn(command, " ");
    snprintf(first, sizeof first, "%.*s", (int)length, command);
    const mdm_manual *page = mdm_manual_find(first, command[length] ? command + length + 1 : NULL, &group);
    for (int i = 0; page && i < MDM_MANUAL_MOST_OPTIONS && page->options[i].name; i++)
        names[count++] = page->options[i].name;
    const char *near = mdm_nearest_name(option, names, count);
    return mdm_fail(MDM_USAGE, "there is no option %s%s%s; mdm-dist %s --help lists them",
                    mdm_printable(option, quoted, sizeof quoted), near ? "; did you mean " : "",
                    near ? near : "", command);
}
