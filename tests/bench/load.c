/* Load on a Unix socket: N clients, each sends a request, waits for the whole reply, sends again.
 *
 *     load SOCKET CLIENTS SECONDS keep|connect REQUESTFILE REPLYBYTES
 *
 * "keep" asks on one connection for ever; "connect" makes a new one for each request, as a shell
 * script would. Prints one line: requests per second, then the 50th and the 99th percentile of the
 * time from request to reply, in microseconds.
 *
 * In C so that what is measured is the server: a client in Python would be the slower side. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct client {
    int socket;
    size_t received;
    double asked_at;
};

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static char request[4096];
static ssize_t request_size;
static int epoll;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void open_connection(struct client *client)
{
    client->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->socket < 0)
        fail("socket");
    while (connect(client->socket, (struct sockaddr *)&address, sizeof address) < 0) {
        if (errno != EAGAIN) /* EAGAIN: the server's backlog is full */
            fail("connect");
        usleep(50);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->socket, &event) < 0)
        fail("epoll_ctl");
}

static void ask(struct client *client)
{
    client->received = 0;
    client->asked_at = now();
    if (write(client->socket, request, request_size) != request_size)
        fail("write");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "load SOCKET CLIENTS SECONDS keep|connect REQUESTFILE REPLYBYTES\n");
        return 2;
    }
    if (strlen(argv[1]) >= sizeof address.sun_path) {
        fprintf(stderr, "load: the path of the socket is too long\n");
        return 2;
    }
    strcpy(address.sun_path, argv[1]);
    int clients = atoi(argv[2]), connect_each = strcmp(argv[4], "connect") == 0;
    double seconds = atof(argv[3]);
    size_t reply_size = strtoul(argv[6], NULL, 10);

    int file = open(argv[5], O_RDONLY | O_CLOEXEC);
    if (file < 0 || (request_size = read(file, request, sizeof request)) <= 0)
        fail(argv[5]);
    close(file);

    size_t count = 0, room = 1 << 20;
    double *times = malloc(room * sizeof *times);
    struct client *all = calloc(clients, sizeof *all);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!times || !all || epoll < 0)
        fail("start");
    for (int i = 0; i < clients; i++) {
        open_connection(&all[i]);
        ask(&all[i]);
    }

    struct epoll_event events[256];
    static char reply[65536];
    double began = now(), end = began + seconds;
    while (now() < end) {
        int ready = epoll_wait(epoll, events, 256, 1000);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            ssize_t size = read(client->socket, reply, sizeof reply);
            if (size <= 0) {
                fprintf(stderr, "load: the server closed a connection\n");
                return 1;
            }
            client->received += size;
            if (client->received < reply_size)
                continue;
            if (count == room && !(times = realloc(times, (room *= 2) * sizeof *times)))
                fail("realloc");
            times[count++] = now() - client->asked_at;
            if (connect_each) {
                close(client->socket);
                open_connection(client);
            }
            ask(client);
        }
    }
    double elapsed = now() - began;
    if (count == 0) {
        fprintf(stderr, "load: no reply at all\n");
        return 1;
    }
    qsort(times, count, sizeof *times, by_value);
    printf("%.0f %.1f %.1f\n", count / elapsed, times[count / 2] * 1e6, times[count * 99 / 100] * 1e6);
    return 0;
}
