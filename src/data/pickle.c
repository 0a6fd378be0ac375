/* A stack machine for the few pickle instructions that Python 2 and 3 write for CIFAR's batches (protocols 2
 * to 4), after the description in Python's pickletools. Values live in one table and refer to each other by
 * number, so that no reference can lead outside, and none can lead to code. */
#include "pickle.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_VALUES = 1 << 22, MOST_TEXT = 1 << 30 };

typedef enum kind { NOTHING, MARK, NUMBER, TEXT, LIST, TUPLE, DICTIONARY, NAME, OBJECT } kind;

/* LIST, TUPLE, DICTIONARY: a chain of cells, keys and values in turn. OBJECT: items are the callable's name,
 * its arguments, and later its state. */
typedef struct value {
    kind kind;
    int64_t number;
    const char *text;
    size_t length;
    int first, last;
    int64_t count;
} value;

typedef struct cell {
    int value, next;
} cell;

struct mdm_pickle {
    const uint8_t *bytes;
    size_t size, at;
    const char *name;
    value *values;
    cell *cells;
    int *stack, *memo;
    int value_count, value_room, cell_count, cell_room, depth, stack_room, memo_count, memo_room, root;
};

static mdm_status damaged(const mdm_pickle *p, const char *what) {
    return mdm_fail(MDM_INPUT, "%s, byte %zu: %s; it is not one of CIFAR's Python files or is damaged",
                    p->name, p->at, what);
}

static mdm_status grow(void **array, int *room, int count, size_t size) {
    if (count < *room) return MDM_OK;
    if (count >= 2 * MOST_VALUES)
        return mdm_fail(MDM_INPUT, "a pickle of more than %d values is refused", 2 * MOST_VALUES);
    int larger = *room ? 2 * *room : 256;
    void *moved = realloc(*array, (size_t)larger * size);
    if (!moved) return mdm_fail(MDM_RESOURCE, "out of memory for a pickle");
    *array = moved;
    *room = larger;
    return MDM_OK;
}

static mdm_status push_index(mdm_pickle *p, int index) {
    MDM_TRY(grow((void **)&p->stack, &p->stack_room, p->depth, sizeof *p->stack));
    p->stack[p->depth++] = index;
    return MDM_OK;
}

static mdm_status push(mdm_pickle *p, value v) {
    MDM_TRY(grow((void **)&p->values, &p->value_room, p->value_count, sizeof *p->values));
    v.first = v.last = -1;
    p->values[p->value_count] = v;
    return push_index(p, p->value_count++);
}

static mdm_status pop(mdm_pickle *p, int *index) {
    *index = 0;
    if (p->depth == 0) return damaged(p, "a value is missing");
    *index = p->stack[--p->depth];
    if (p->values[*index].kind == MARK) return damaged(p, "a value is missing");
    return MDM_OK;
}

static mdm_status append(mdm_pickle *p, int owner, int item) {
    MDM_TRY(grow((void **)&p->cells, &p->cell_room, p->cell_count, sizeof *p->cells));
    value *v = &p->values[owner];
    p->cells[p->cell_count] = (cell){item, -1};
    if (v->last >= 0)
        p->cells[v->last].next = p->cell_count;
    else
        v->first = p->cell_count;
    v->last = p->cell_count++;
    v->count++;
    return MDM_OK;
}

/* Item `index` of a value's chain, or -1. */
static int item(const mdm_pickle *p, int owner, int64_t index) {
    int at = p->values[owner].first;
    while (at >= 0 && index-- > 0) at = p->cells[at].next;
    return at < 0 ? -1 : p->cells[at].value;
}

static mdm_status take(mdm_pickle *p, size_t count, const uint8_t **from) {
    *from = p->bytes + p->at;
    if (count > p->size - p->at) return damaged(p, "it was cut short");
    p->at += count;
    return MDM_OK;
}

static mdm_status take_number(mdm_pickle *p, int bytes, uint64_t *number) {
    const uint8_t *from;
    *number = 0;
    MDM_TRY(take(p, (size_t)bytes, &from));
    for (int i = 0; i < bytes; i++) *number |= (uint64_t)from[i] << (8 * i);
    return MDM_OK;
}

/* A text with a length of so many bytes in front. */
static mdm_status push_text(mdm_pickle *p, int length_bytes) {
    uint64_t length;
    const uint8_t *from;
    MDM_TRY(take_number(p, length_bytes, &length));
    if (length > MOST_TEXT) return damaged(p, "an impossible length");
    MDM_TRY(take(p, (size_t)length, &from));
    return push(p, (value){.kind = TEXT, .text = (const char *)from, .length = (size_t)length});
}

static mdm_status push_number(mdm_pickle *p, int bytes) {
    uint64_t number;
    MDM_TRY(take_number(p, bytes, &number));
    int64_t signed_number = bytes == 4 ? (int32_t)(uint32_t)number : (int64_t)number;
    return push(p, (value){.kind = NUMBER, .number = signed_number});
}

/* LONG1: a length byte and so many bytes of a two's complement number. */
static mdm_status push_long(mdm_pickle *p) {
    uint64_t bytes, number;
    MDM_TRY(take_number(p, 1, &bytes));
    if (bytes > 8) return damaged(p, "a number is too large");
    MDM_TRY(take_number(p, (int)bytes, &number));
    if (bytes > 0 && bytes < 8 && number >> (8 * bytes - 1)) number |= ~(uint64_t)0 << (8 * bytes);
    return push(p, (value){.kind = NUMBER, .number = (int64_t)number});
}

/* Position on the stack behind the topmost mark. */
static mdm_status find_mark(const mdm_pickle *p, int *behind) {
    for (*behind = p->depth; *behind > 0; (*behind)--)
        if (p->values[p->stack[*behind - 1]].kind == MARK) return MDM_OK;
    return damaged(p, "a mark is missing");
}

/* Appends what lies above the mark to the list or dictionary below it; for a tuple (`fresh`) makes one. */
static mdm_status gather(mdm_pickle *p, int from, kind wanted, int fresh) {
    int end = p->depth, base = fresh ? from : from - 1,
        owner; /* without the mark that lies below a list's items */
    if (fresh) {
        MDM_TRY(push(p, (value){.kind = TUPLE}));
        owner = p->stack[--p->depth];
    } else {
        if (base < 1) return damaged(p, "a list is missing");
        owner = p->stack[base - 1];
        if (p->values[owner].kind != wanted || (wanted == DICTIONARY && (end - from) % 2))
            return damaged(p, "items of nothing");
    }
    for (int i = from; i < end; i++) {
        if (p->stack[i] == owner || p->values[p->stack[i]].kind == MARK)
            return damaged(p, "a list inside itself");
        MDM_TRY(append(p, owner, p->stack[i]));
    }
    p->depth = base;
    return fresh ? push_index(p, owner) : MDM_OK;
}

static mdm_status gather_marked(mdm_pickle *p, kind wanted) {
    int from;
    MDM_TRY(find_mark(p, &from));
    if (wanted != TUPLE) return gather(p, from, wanted, 0);
    MDM_TRY(gather(p, from, wanted, 1));
    p->stack[p->depth - 2] = p->stack[p->depth - 1]; /* the mark goes */
    p->depth--;
    return MDM_OK;
}

static mdm_status gather_last(mdm_pickle *p, int count) {
    if (p->depth < count) return damaged(p, "a value is missing");
    for (int i = 1; i <= count; i++)
        if (p->values[p->stack[p->depth - i]].kind == MARK) return damaged(p, "a value is missing");
    return gather(p, p->depth - count, TUPLE, 1);
}

/* One item below it, without a mark. */
static mdm_status append_one(mdm_pickle *p, int items, kind wanted) {
    if (p->depth < items + 1) return damaged(p, "a value is missing");
    int owner = p->stack[p->depth - items - 1];
    if (p->values[owner].kind != wanted) return damaged(p, "items of nothing");
    for (int i = items; i > 0; i--) MDM_TRY(append(p, owner, p->stack[p->depth - i]));
    p->depth -= items;
    return MDM_OK;
}

/* "module\nname\n": the four names that a numpy array needs stay names; all others are refused. */
static int is_known_name(const char *module, size_t module_length, const char *name, size_t name_length) {
    static const char *const known[][2] = {{"numpy.core.multiarray", "_reconstruct"},
                                           {"numpy._core.multiarray", "_reconstruct"},
                                           {"numpy", "ndarray"},
                                           {"numpy", "dtype"}};
    for (int i = 0; i < 4; i++)
        if (module_length == strlen(known[i][0]) && memcmp(module, known[i][0], module_length) == 0 &&
            name_length == strlen(known[i][1]) && memcmp(name, known[i][1], name_length) == 0)
            return 1;
    return 0;
}

static mdm_status push_name(mdm_pickle *p, const char *module, size_t module_length, const char *name,
                            size_t name_length) {
    if (!is_known_name(module, module_length, name, name_length))
        return damaged(p, "it names a Python object that CIFAR's files do not have, which is refused");
    return push(p, (value){.kind = NAME, .text = name, .length = name_length});
}

static mdm_status read_name(mdm_pickle *p) {
    const char *part[2];
    size_t length[2];
    for (int i = 0; i < 2; i++) {
        part[i] = (const char *)p->bytes + p->at;
        const char *end = memchr(part[i], '\n', p->size - p->at);
        if (!end) return damaged(p, "it was cut short");
        length[i] = (size_t)(end - part[i]);
        p->at += length[i] + 1;
    }
    return push_name(p, part[0], length[0], part[1], length[1]);
}

static mdm_status name_from_stack(mdm_pickle *p) {
    int name, module;
    MDM_TRY(pop(p, &name));
    MDM_TRY(pop(p, &module));
    const value *n = &p->values[name], *m = &p->values[module];
    if (n->kind != TEXT || m->kind != TEXT) return damaged(p, "a name is no text");
    return push_name(p, m->text, m->length, n->text, n->length);
}

/* REDUCE and BUILD only note what was asked for. */
static mdm_status note_call(mdm_pickle *p) {
    int arguments, name;
    MDM_TRY(pop(p, &arguments));
    MDM_TRY(pop(p, &name));
    if (p->values[name].kind != NAME || p->values[arguments].kind != TUPLE)
        return damaged(p, "a call of nothing");
    MDM_TRY(push(p, (value){.kind = OBJECT}));
    int object = p->stack[p->depth - 1];
    MDM_TRY(append(p, object, name));
    return append(p, object, arguments);
}

static mdm_status note_state(mdm_pickle *p) {
    int state;
    MDM_TRY(pop(p, &state));
    if (p->depth == 0 || p->values[p->stack[p->depth - 1]].kind != OBJECT || p->values[state].kind != TUPLE ||
        p->values[p->stack[p->depth - 1]].count != 2)
        return damaged(p, "a state of nothing");
    return append(p, p->stack[p->depth - 1], state);
}

static mdm_status remember(mdm_pickle *p, uint64_t place) {
    if (p->depth == 0 || place >= MOST_VALUES) return damaged(p, "nothing to remember");
    while ((uint64_t)p->memo_count <= place) {
        MDM_TRY(grow((void **)&p->memo, &p->memo_room, p->memo_count, sizeof *p->memo));
        p->memo[p->memo_count++] = -1;
    }
    p->memo[place] = p->stack[p->depth - 1];
    return MDM_OK;
}

/* What puts one value on the stack. */
static mdm_status push_value(mdm_pickle *p, int instruction) {
    switch (instruction) {
    case '(':
        return push(p, (value){.kind = MARK});
    case ')':
        return push(p, (value){.kind = TUPLE});
    case ']':
        return push(p, (value){.kind = LIST});
    case '}':
        return push(p, (value){.kind = DICTIONARY});
    case 'N':
        return push(p, (value){.kind = NOTHING});
    case 0x88:
    case 0x89: /* True, False */
        return push(p, (value){.kind = NUMBER, .number = instruction == 0x88});
    case 'K':
        return push_number(p, 1);
    case 'M':
        return push_number(p, 2);
    case 'J':
        return push_number(p, 4);
    case 0x8a:
        return push_long(p);
    case 'U':
    case 'C':
    case 0x8c: /* texts and bytes, short */
        return push_text(p, 1);
    case 'T':
    case 'B':
    case 'X':
        return push_text(p, 4);
    case 0x8d:
    case 0x8e:
        return push_text(p, 8);
    default:
        return damaged(p, "an instruction that CIFAR's files do not have");
    }
}

static mdm_status recall(mdm_pickle *p, uint64_t place) {
    if (place >= (uint64_t)p->memo_count || p->memo[place] < 0 || p->values[p->memo[place]].kind == MARK)
        return damaged(p, "nothing was remembered there");
    return push_index(p, p->memo[place]);
}

static mdm_status step(mdm_pickle *p, int instruction) {
    uint64_t number;
    switch (instruction) {
    case 0x80: /* PROTO */
        MDM_TRY(take_number(p, 1, &number));
        return number >= 2 && number <= 5 ? MDM_OK : damaged(p, "an unknown protocol");
    case 0x95: /* FRAME */
        return take_number(p, 8, &number);
    case 't':
        return gather_marked(p, TUPLE);
    case 'e':
        return gather_marked(p, LIST);
    case 'u':
        return gather_marked(p, DICTIONARY);
    case 0x85:
    case 0x86:
    case 0x87:
        return gather_last(p, instruction - 0x84);
    case 'a':
        return append_one(p, 1, LIST);
    case 's':
        return append_one(p, 2, DICTIONARY);
    case 'c':
        return read_name(p);
    case 0x93:
        return name_from_stack(p);
    case 'R':
        return note_call(p);
    case 'b':
        return note_state(p);
    case 'q':
    case 'r': /* BINPUT, LONG_BINPUT */
        MDM_TRY(take_number(p, instruction == 'q' ? 1 : 4, &number));
        return remember(p, number);
    case 0x94: /* MEMOIZE */
        return remember(p, (uint64_t)p->memo_count);
    case 'h':
    case 'j':
        MDM_TRY(take_number(p, instruction == 'h' ? 1 : 4, &number));
        return recall(p, number);
    default:
        return push_value(p, instruction);
    }
}

static mdm_status run(mdm_pickle *p) {
    const uint8_t *instruction;
    for (;;) {
        MDM_TRY(take(p, 1, &instruction));
        if (*instruction == '.') break;
        if (p->value_count > MOST_VALUES) return damaged(p, "too many values");
        MDM_TRY(step(p, *instruction));
    }
    MDM_TRY(pop(p, &p->root));
    if (p->values[p->root].kind != DICTIONARY) return damaged(p, "its value is no dictionary");
    return MDM_OK;
}

mdm_status mdm_pickle_read(const uint8_t *bytes, size_t size, const char *name, mdm_pickle **out) {
    mdm_pickle *p;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(p, 1, "a pickle"));
    p->bytes = bytes;
    p->size = size;
    p->name = name;
    mdm_status status = run(p);
    if (status == MDM_OK)
        *out = p;
    else
        mdm_pickle_free(p);
    return status;
}

void mdm_pickle_free(mdm_pickle *p) {
    if (!p) return;
    free(p->values);
    free(p->cells);
    free(p->stack);
    free(p->memo);
    free(p);
}

static int is_text(const mdm_pickle *p, int index, const char *text) {
    return index >= 0 && p->values[index].kind == TEXT && p->values[index].length == strlen(text) &&
           memcmp(p->values[index].text, text, strlen(text)) == 0;
}

/* The value under `key`, or -1. */
static int find(const mdm_pickle *p, const char *key) {
    for (int at = p->values[p->root].first; at >= 0;) {
        int behind = p->cells[at].next;
        if (behind < 0) return -1;
        if (is_text(p, p->cells[at].value, key)) return p->cells[behind].value;
        at = p->cells[behind].next;
    }
    return -1;
}

int64_t mdm_pickle_list(const mdm_pickle *p, const char *key) {
    int list = find(p, key);
    return list >= 0 && p->values[list].kind == LIST ? p->values[list].count : -1;
}

/* The cells of one list follow each other in nearly every file, but need not: walk. */
static int list_item(const mdm_pickle *p, const char *key, int64_t index) {
    int list = find(p, key);
    if (list < 0 || p->values[list].kind != LIST) return -1;
    int64_t guess = p->values[list].first + index;
    if (p->values[list].last - p->values[list].first + 1 == p->values[list].count &&
        index < p->values[list].count)
        return p->cells[guess].value;
    return item(p, list, index);
}

int mdm_pickle_number(const mdm_pickle *p, const char *key, int64_t index, int64_t *number) {
    int found = list_item(p, key, index);
    if (found < 0 || p->values[found].kind != NUMBER) return 0;
    *number = p->values[found].number;
    return 1;
}

const char *mdm_pickle_text(const mdm_pickle *p, const char *key, int64_t index, size_t *length) {
    int found = list_item(p, key, index);
    if (found < 0 || p->values[found].kind != TEXT) return NULL;
    *length = p->values[found].length;
    return p->values[found].text;
}

static int is_byte_type(const mdm_pickle *p, int type) {
    if (type < 0 || p->values[type].kind != OBJECT) return 0;
    int name = item(p, type, 0), arguments = item(p, type, 1);
    return p->values[name].length == 5 && memcmp(p->values[name].text, "dtype", 5) == 0 &&
           is_text(p, item(p, arguments, 0), "u1");
}

const uint8_t *mdm_pickle_array(const mdm_pickle *p, const char *key, int64_t *rows, int64_t *columns) {
    int array = find(p, key);
    if (array < 0 || p->values[array].kind != OBJECT || p->values[array].count != 3) return NULL;
    int state = item(p, array, 2); /* (version, shape, type, column order?, bytes) */
    int shape = item(p, state, 1), type = item(p, state, 2), order = item(p, state, 3),
        data = item(p, state, 4);
    if (shape < 0 || order < 0 || data < 0 || p->values[shape].kind != TUPLE || p->values[shape].count != 2)
        return NULL;
    const value *r = &p->values[item(p, shape, 0)], *c = &p->values[item(p, shape, 1)],
                *bytes = &p->values[data];
    if (!is_byte_type(p, type) || r->kind != NUMBER || c->kind != NUMBER || bytes->kind != TEXT ||
        p->values[order].kind != NUMBER || p->values[order].number != 0)
        return NULL;
    if (r->number < 1 || c->number < 1 || c->number > MOST_TEXT || r->number > MOST_TEXT ||
        (uint64_t)r->number * (uint64_t)c->number != bytes->length)
        return NULL;
    *rows = r->number;
    *columns = c->number;
    return (const uint8_t *)bytes->text;
}
