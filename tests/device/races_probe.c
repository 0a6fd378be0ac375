/* Whether ThreadSanitizer can run here (tests/races.sh). */
int main(void) {
    return 0;
}
