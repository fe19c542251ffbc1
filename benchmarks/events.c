/* The two ends of the eventing benchmarks, compiled so that they cost next to nothing.
 *
 *   events sink PORT      answers 202 to every POST, and counts; GET answers
 *                         "<count> <p50 us> <out of order>" and starts anew: microseconds from the
 *                         moment in Ce-Sent to the arrival, and how often Ce-Id went back
 *   events send PORT TARGET HOST CONNECTIONS SECONDS [COUNT]
 *                         posts events over keep-alive connections, each waiting for its answer;
 *                         prints "<accepted> <refused> <seconds> <p50 us> <p99 us>"
 *
 * `send` stops after SECONDS or, when given, after COUNT accepted events. Refused ones (any status
 * but 2xx) are sent again after a pause of a millisecond.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, MOST = 1024, SAMPLES = 1 << 20 };

struct end {
  int fd;
  size_t length;       /* bytes in `in` */
  size_t skip;         /* bytes of a body still to come */
  long long began;     /* when the request under way was sent */
  char in[BUFFER + 1];
};

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void no_delay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Length of the first complete message in `in` (its body counted by Content-Length), 0 for none.
 * A body that is longer than what is here is left to `skip`. */
static size_t message(struct end *e) {
  e->in[e->length] = 0;
  char *head = strstr(e->in, "\r\n\r\n");
  if (!head) return 0;
  size_t size = head + 4 - e->in;
  char *field = strcasestr(e->in, "\r\ncontent-length:");
  size_t body = field && field < head ? strtoul(field + 17, NULL, 10) : 0;
  if (size + body > e->length) {
    if (size + body < BUFFER) return 0;
    e->skip = size + body - e->length;
    return e->length;
  }
  return size + body;
}

/* The number in a header of the message at the start of `in`, or -1. */
static long long number(struct end *e, const char *name) {
  char *head = strstr(e->in, "\r\n\r\n"), *field = strcasestr(e->in, name);
  return field && field < head ? atoll(field + strlen(name)) : -1;
}

static int by_size(const void *a, const void *b) {
  int x = *(const int *)a, y = *(const int *)b;
  return (x > y) - (x < y);
}

static void drop(struct end *e, size_t size) {
  e->length -= size;
  memmove(e->in, e->in + size, e->length);
}

static void sink(int port) {
  int door = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(door, (void *)&at, sizeof at) || listen(door, 1024)) die("cannot listen");
  int poll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
  epoll_ctl(poll, EPOLL_CTL_ADD, door, &event);
  long long count = 0, sampled = 0, before = -1, disorder = 0;
  int *samples = malloc(SAMPLES * sizeof *samples);
  for (;;) {
    int n = epoll_wait(poll, ready, 256, -1);
    for (int i = 0; i < n; i++) {
      struct end *e = ready[i].data.ptr;
      if (!e) {
        int fd = accept(door, NULL, NULL);
        if (fd < 0) continue;
        no_delay(fd);
        e = calloc(1, sizeof *e);
        e->fd = fd;
        struct epoll_event mine = {.events = EPOLLIN, .data.ptr = e};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &mine);
        continue;
      }
      ssize_t got = read(e->fd, e->in + e->length, BUFFER - e->length);
      if (got <= 0) {
        close(e->fd);
        free(e);
        continue;
      }
      e->length += got;
      if (e->skip) {
        size_t part = e->skip < e->length ? e->skip : e->length;
        e->skip -= part;
        drop(e, part);
      }
      size_t size;
      while (!e->skip && (size = message(e))) {
        char answer[128];
        int length;
        if (e->in[0] == 'P') {
          long long sent = number(e, "\r\nce-sent:"), id = number(e, "\r\nce-id:");
          count++;
          if (sent > 0) samples[sampled++ % SAMPLES] = (int)((now() - sent) / 1000);
          if (id < before) disorder++;
          before = id;
          length = sprintf(answer, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        } else {
          char text[64];
          if (sampled > SAMPLES) sampled = SAMPLES;
          qsort(samples, sampled, sizeof *samples, by_size);
          int median = sampled ? samples[sampled / 2] : 0;
          int body = sprintf(text, "%lld %d %lld", count, median, disorder);
          sampled = disorder = 0;
          before = -1;
          length = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", body, text);
        }
        drop(e, size);
        if (write(e->fd, answer, length) < 0) break;
      }
    }
  }
}

static char *target, *host;
static long long serial;

static void post(struct end *e) {
  static const char data[] = "{\"order\": 4711, \"customer\": \"c-17\", \"total\": 12.50}";
  char request[2048];
  e->began = now();
  int length = sprintf(
      request,
      "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: events\r\nContent-Type: application/json\r\n"
      "Ce-Specversion: 1.0\r\nCe-Type: order.created\r\nCe-Source: /benchmark/sender\r\n"
      "Ce-Id: %lld\r\nCe-Time: 2026-01-01T00:00:00.000000Z\r\nCe-Sent: %lld\r\n"
      "Content-Length: %zu\r\n\r\n%s",
      target, host, ++serial, e->began, sizeof data - 1, data);
  if (write(e->fd, request, length) != length) die("cannot send");
}

static void send_events(int port, int connections, double seconds, long long most) {
  static struct end ends[MOST];
  int *samples = malloc(SAMPLES * sizeof *samples);
  int poll = epoll_create1(0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < connections; i++) {
    ends[i].fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(ends[i].fd, (void *)&at, sizeof at)) die("cannot connect");
    no_delay(ends[i].fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ends[i]};
    epoll_ctl(poll, EPOLL_CTL_ADD, ends[i].fd, &event);
  }
  long long accepted = 0, refused = 0, sampled = 0, open = connections;
  long long began = now(), until = began + (long long)(seconds * 1e9);
  for (int i = 0; i < connections; i++) post(&ends[i]);
  struct epoll_event ready[256];
  while (open) {
    int n = epoll_wait(poll, ready, 256, 1000);
    for (int i = 0; i < n; i++) {
      struct end *e = ready[i].data.ptr;
      ssize_t got = read(e->fd, e->in + e->length, BUFFER - e->length);
      if (got <= 0) die("the door closed a connection");
      e->length += got;
      size_t size = message(e);
      if (!size) continue;
      int status = atoi(e->in + 9);
      drop(e, size);
      if (status / 100 == 2) {
        accepted++;
        samples[sampled++ % SAMPLES] = (int)((now() - e->began) / 1000);
      } else {
        refused++;
        usleep(1000);
      }
      int enough = most && accepted + open > most;
      if (now() < until && !enough) post(e);
      else open--;
    }
    if (n == 0 && now() > until) break;
  }
  double took = (now() - began) / 1e9;
  if (sampled > SAMPLES) sampled = SAMPLES;
  qsort(samples, sampled, sizeof *samples, by_size);
  printf("%lld %lld %f %d %d\n", accepted, refused, took, sampled ? samples[sampled / 2] : 0,
         sampled ? samples[sampled * 99 / 100] : 0);
}

int main(int count, char **word) {
  if (count == 3 && !strcmp(word[1], "sink")) sink(atoi(word[2]));
  if (count >= 7 && !strcmp(word[1], "send")) {
    target = word[3];
    host = word[4];
    int connections = atoi(word[5]);
    if (connections < 1 || connections > MOST) return 2;
    send_events(atoi(word[2]), connections, atof(word[6]), count > 7 ? atoll(word[7]) : 0);
    return 0;
  }
  fprintf(stderr, "usage: events sink PORT | events send PORT TARGET HOST CONNECTIONS SECONDS [COUNT]\n");
  return 2;
}
