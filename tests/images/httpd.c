/* A small, fast HTTP/1.1 server for tests and benchmarks: one process, epoll, no allocation per
 * request. Static, so that its image is `FROM scratch`.
 *
 *   httpd                serve on $PORT (8080)
 *   httpd crash [CODE]   say so on stderr and exit at once
 *   httpd flood [BYTES]  write that many bytes of log lines (for ever when 0), then wait
 *   httpd eat [MIB]      take and touch that much memory, then wait
 *
 * GET /                 200, "Hello $TARGET!"
 * GET /sleep?ms=N       200 after N milliseconds (others are served meanwhile)
 * GET /env[?name=X]     the environment, one NAME=value a line (or one value)
 * GET /headers          the request head, as it came
 * GET /hostname         the host name
 * GET /status?code=N    that status
 * GET /bytes?n=N        N bytes
 * GET /exit?code=N      answers, then exits with that code
 * GET /healthz          200; 503 after GET /unhealthy, 200 again after GET /healthy
 * POST, PUT             202 once the body (Content-Length or chunked) has been read
 *
 * Environment: PORT, TARGET, START_DELAY_MS (before listening), IGNORE_TERM=1 (SIGTERM is ignored),
 * LOG_REQUESTS=1. On SIGTERM: no new connections, requests in flight are answered, exit 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { IN_SIZE = 64 * 1024, HEAD_SIZE = 512, BLOCK = 64 * 1024 };
enum body { NO_BODY, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct conn {
  int fd;
  int closing;          /* close when everything is sent */
  int exit_code;        /* >= 0: exit when everything is sent */
  int have_head;        /* a request is under way */
  int is_post;
  enum body body;
  long long left;       /* bytes left in the body or chunk */
  size_t in_len, head_len;
  char *out;            /* answer head and body */
  size_t out_len, out_sent, out_size;
  long long fill_left;  /* bytes of filler to send after `out` */
  long long due;        /* answer no sooner (milliseconds), 0: not sleeping */
  int want_write;
  struct conn *prev, *next;
  char in[IN_SIZE + 1];
};

static char filler[BLOCK];
static struct conn all = {.prev = &all, .next = &all};
static struct conn *free_list;
static int epoll_fd, listen_fd = -1, healthy = 1, log_requests, sleeping;
static volatile sig_atomic_t stopping;
static char hello[1024];

static long long now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void pause_ms(long ms) {
  struct timespec t = {ms / 1000, (ms % 1000) * 1000000};
  while (nanosleep(&t, &t) < 0 && errno == EINTR && !stopping) {
  }
}

static void on_term(int sig) {
  (void)sig;
  stopping = 1;
}

static void fail(const char *what) {
  perror(what);
  exit(2);
}

static void reserve(struct conn *c, size_t more) {
  if (c->out_len + more <= c->out_size) return;
  size_t size = c->out_size ? c->out_size : 4096;
  while (size < c->out_len + more) size *= 2;
  c->out = realloc(c->out, size);
  if (!c->out) fail("realloc");
  c->out_size = size;
}

static void put(struct conn *c, const char *data, size_t n) {
  reserve(c, n);
  memcpy(c->out + c->out_len, data, n);
  c->out_len += n;
}

static void drop(struct conn *c) {
  if (c->due) sleeping--;
  close(c->fd);
  c->prev->next = c->next;
  c->next->prev = c->prev;
  c->next = free_list;
  free_list = c;
}

static const char *reason(int code) {
  switch (code) {
    case 200: return "OK";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    case 429: return "Too Many Requests";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    default: return "Status";
  }
}

static void respond(struct conn *c, int code, const char *body, size_t n, long long fill, int head_only) {
  char head[HEAD_SIZE];
  int len;
  if (code == 204 || code == 304)
    len = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\n%s\r\n", code, reason(code),
                   c->closing ? "Connection: close\r\n" : "");
  else
    len = snprintf(head, sizeof head,
                   "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %lld\r\n%s\r\n",
                   code, reason(code), (long long)n + fill, c->closing ? "Connection: close\r\n" : "");
  put(c, head, (size_t)len);
  if (head_only || code == 204 || code == 304) return;
  put(c, body, n);
  c->fill_left = fill;
}

static void respond_text(struct conn *c, int code, const char *text, int head_only) {
  respond(c, code, text, strlen(text), 0, head_only);
}

/* The value of `name=` in the query, as a number; `missing` when it is not there. */
static long long query_number(const char *query, const char *name, long long missing) {
  size_t n = strlen(name);
  for (const char *p = query; p && *p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL)
    if (!strncmp(p, name, n) && p[n] == '=') return atoll(p + n + 1);
  return missing;
}

static void answer_env(struct conn *c, const char *query, int head_only) {
  char text[IN_SIZE];
  size_t n = 0;
  if (query && !strncmp(query, "name=", 5)) {
    const char *value = getenv(query + 5);
    if (value) respond_text(c, 200, value, head_only);
    else respond_text(c, 404, "not set\n", head_only);
    return;
  }
  for (char **e = environ; *e; e++) {
    int w = snprintf(text + n, sizeof text - n, "%s\n", *e);
    if (w < 0 || (size_t)w >= sizeof text - n) break;
    n += (size_t)w;
  }
  respond(c, 200, text, n, 0, head_only);
}

/* Answer the request whose head is the first `head_len` bytes of `in` (body read). */
static void answer(struct conn *c) {
  char line[4096];
  size_t n = (size_t)((char *)memchr(c->in, '\r', c->head_len) - c->in);
  if (n >= sizeof line) {
    c->closing = 1;
    respond_text(c, 413, "request line too long\n", 0);
    return;
  }
  memcpy(line, c->in, n);
  line[n] = 0;
  char *path = strchr(line, ' ');
  char *end = path ? strchr(path + 1, ' ') : NULL;
  if (!end) {
    c->closing = 1;
    respond_text(c, 400, "bad request line\n", 0);
    return;
  }
  *path++ = 0;
  *end = 0;
  if (log_requests) {
    printf("%s %s\n", line, path);
    fflush(stdout);
  }
  char *query = strchr(path, '?');
  if (query) *query++ = 0;
  int head = !strcmp(line, "HEAD");
  if (c->is_post) respond(c, 202, "", 0, 0, 0);
  else if (!strcmp(path, "/")) respond_text(c, 200, hello, head);
  else if (!strcmp(path, "/healthz")) respond_text(c, healthy ? 200 : 503, healthy ? "ok\n" : "unhealthy\n", head);
  else if (!strcmp(path, "/unhealthy")) healthy = 0, respond_text(c, 200, "now unhealthy\n", head);
  else if (!strcmp(path, "/healthy")) healthy = 1, respond_text(c, 200, "now healthy\n", head);
  else if (!strcmp(path, "/env")) answer_env(c, query, head);
  else if (!strcmp(path, "/headers")) respond(c, 200, c->in, c->head_len, 0, head);
  else if (!strcmp(path, "/bytes")) respond(c, 200, "", 0, query_number(query, "n", 1024), head);
  else if (!strcmp(path, "/status")) respond_text(c, (int)query_number(query, "code", 200), "status as asked\n", head);
  else if (!strcmp(path, "/hostname")) {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    respond_text(c, 200, name, head);
  } else if (!strcmp(path, "/sleep")) {
    respond_text(c, 200, "slept\n", head);
    c->due = now_ms() + query_number(query, "ms", 0) + 1;
    sleeping++;
  } else if (!strcmp(path, "/exit")) {
    c->exit_code = (int)query_number(query, "code", 0) & 255;
    respond_text(c, 200, "bye\n", head);
  } else respond_text(c, 404, "no such page\n", head);
}

/* Read what the head says about connection and body. */
static void read_head(struct conn *c) {
  char *p = c->in, *end = c->in + c->head_len;
  char *line_end = memchr(p, '\r', c->head_len);
  c->is_post = !strncmp(p, "POST ", 5) || !strncmp(p, "PUT ", 4);
  c->body = NO_BODY;
  c->left = 0;
  if (line_end - p > 8 && !strncmp(line_end - 8, "HTTP/1.0", 8)) c->closing = 1;
  for (p = line_end + 2; p < end - 2; p = line_end + 2) {
    line_end = memchr(p, '\r', (size_t)(end - p));
    if (!line_end) break;
    if (!strncasecmp(p, "content-length:", 15)) {
      if (c->body == NO_BODY) c->body = LENGTH;
      c->left = atoll(p + 15);
    } else if (!strncasecmp(p, "transfer-encoding:", 18)) {
      if (memmem(p, (size_t)(line_end - p), "chunked", 7)) c->body = CHUNK_SIZE;
    } else if (!strncasecmp(p, "connection:", 11)) {
      for (char *q = p + 11; q + 5 <= line_end; q++)
        if (!strncasecmp(q, "close", 5)) c->closing = 1;
    } else if (!strncasecmp(p, "expect:", 7)) {
      put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
  }
  if (c->body == LENGTH && c->left == 0) c->body = NO_BODY;
}

static void consume(struct conn *c, size_t n) {
  /* The head stays at the front until the answer is made; body bytes after it are dropped. */
  memmove(c->in + c->head_len, c->in + c->head_len + n, c->in_len - c->head_len - n);
  c->in_len -= n;
}

/* Drop body bytes; 1 when the body is complete. */
static int drain_body(struct conn *c) {
  for (;;) {
    size_t have = c->in_len - c->head_len;
    char *p = c->in + c->head_len;
    if (c->body == NO_BODY) return 1;
    if (c->body == LENGTH || c->body == CHUNK_DATA) {
      size_t n = (long long)have < c->left ? have : (size_t)c->left;
      consume(c, n);
      c->left -= (long long)n;
      if (c->left) return 0;
      c->body = c->body == LENGTH ? NO_BODY : CHUNK_END;
      continue;
    }
    char *nl = memchr(p, '\n', have);
    if (!nl) return 0;
    if (c->body == CHUNK_SIZE) {
      c->left = strtoll(p, NULL, 16);
      c->body = c->left ? CHUNK_DATA : TRAILER;
    } else if (c->body == CHUNK_END) {
      c->body = CHUNK_SIZE;
    } else if (nl - p <= 1) { /* the empty line after the trailers */
      c->body = NO_BODY;
    }
    consume(c, (size_t)(nl + 1 - p));
  }
}

/* Send what there is; 0 when the connection is gone. */
static int flush_out(struct conn *c) {
  for (;;) {
    const char *data = c->out + c->out_sent;
    size_t n = c->out_len - c->out_sent;
    if (!n) {
      if (!c->fill_left) break;
      data = filler;
      n = c->fill_left < BLOCK ? (size_t)c->fill_left : BLOCK;
    }
    ssize_t w = send(c->fd, data, n, MSG_NOSIGNAL);
    if (w < 0) {
      if (errno == EAGAIN) {
        if (!c->want_write) {
          struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
          epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
          c->want_write = 1;
        }
        return 1;
      }
      drop(c);
      return 0;
    }
    if (c->out_len - c->out_sent) c->out_sent += (size_t)w;
    else c->fill_left -= w;
  }
  c->out_len = c->out_sent = 0;
  if (c->want_write) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->want_write = 0;
  }
  if (c->exit_code >= 0 && !c->have_head) {
    shutdown(c->fd, SHUT_WR);
    exit(c->exit_code);
  }
  if ((c->closing || stopping) && !c->have_head) {
    drop(c);
    return 0;
  }
  return 1;
}

static void finish_request(struct conn *c) {
  c->have_head = 0;
  memmove(c->in, c->in + c->head_len, c->in_len - c->head_len);
  c->in_len -= c->head_len;
  c->head_len = 0;
}

/* Take as many requests from the input as can be answered now. 0 when the connection is gone. */
static int advance(struct conn *c) {
  for (;;) {
    if (c->due || c->out_len || c->fill_left) return flush_out(c);
    if (!c->have_head) {
      if (!c->in_len) return flush_out(c);
      char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
      if (!end) {
        if (c->in_len < IN_SIZE) return 1;
        drop(c);
        return 0;
      }
      c->head_len = (size_t)(end + 4 - c->in);
      c->have_head = 1;
      read_head(c);
      if (c->out_len && !flush_out(c)) return 0;
    }
    if (!drain_body(c)) return 1;
    answer(c);
    if (c->due) return 1;
    finish_request(c);
    if (!flush_out(c)) return 0;
    if (c->out_len || c->fill_left) return 1;
  }
}

static void wake_sleepers(void) {
  long long now = now_ms();
  for (struct conn *c = all.next, *next; c != &all; c = next) {
    next = c->next;
    if (!c->due || c->due > now) continue;
    c->due = 0;
    sleeping--;
    finish_request(c);
    if (flush_out(c)) advance(c);
  }
}

static int next_wait(void) {
  if (!sleeping) return stopping ? 50 : 1000;
  long long now = now_ms(), soonest = now + 1000;
  for (struct conn *c = all.next; c != &all; c = c->next)
    if (c->due && c->due < soonest) soonest = c->due;
  return soonest > now ? (int)(soonest - now) : 0;
}

static void accept_all(void) {
  int fd;
  while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct conn *c = free_list;
    char *out = NULL;
    size_t out_size = 0;
    if (c) free_list = c->next, out = c->out, out_size = c->out_size;
    else if (!(c = malloc(sizeof *c))) fail("malloc");
    memset(c, 0, offsetof(struct conn, in));
    c->out = out, c->out_size = out_size, c->fd = fd, c->exit_code = -1;
    c->next = all.next, c->prev = &all;
    all.next->prev = c, all.next = c;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
  }
}

static void on_ready(struct conn *c, unsigned events) {
  if (events & EPOLLOUT) {
    if (!advance(c)) return;
  }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    while (c->in_len < IN_SIZE) {
      ssize_t n = recv(c->fd, c->in + c->in_len, IN_SIZE - c->in_len, 0);
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) {
        drop(c);
        return;
      }
      size_t asked = IN_SIZE - c->in_len;
      c->in_len += (size_t)n;
      if (!advance(c) || (size_t)n < asked) return;
    }
  }
}

static int serve(void) {
  const char *port = getenv("PORT"), *target = getenv("TARGET"), *delay = getenv("START_DELAY_MS");
  snprintf(hello, sizeof hello, "Hello %s!\n", target ? target : "World");
  log_requests = getenv("LOG_REQUESTS") != NULL;
  memset(filler, 'x', sizeof filler);
  if (delay) pause_ms(atol(delay));
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port && *port ? port : "8080"))};
  int one = 1;
  listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listen_fd < 0) fail("socket");
  setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listen_fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
  if (listen(listen_fd, 4096) < 0) fail("listen");
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, ready[256];
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &e);
  printf("listening on %d\n", ntohs(address.sin_port));
  fflush(stdout);
  for (;;) {
    int n = epoll_wait(epoll_fd, ready, 256, next_wait());
    for (int i = 0; i < n; i++) {
      if (ready[i].data.ptr) on_ready(ready[i].data.ptr, ready[i].events);
      else accept_all();
    }
    if (sleeping) wake_sleepers();
    if (stopping) {
      if (listen_fd >= 0) close(listen_fd), listen_fd = -1;
      for (struct conn *c = all.next, *next; c != &all; c = next) {
        next = c->next;
        if (!c->have_head && !c->out_len && !c->fill_left) drop(c);
      }
      if (all.next == &all) {
        printf("stopped\n");
        return 0;
      }
    }
  }
}

static int wait_for_term(void) {
  while (!stopping) pause();
  return 0;
}

static int flood(long long bytes) {
  static char line[1024];
  memset(line, 'f', sizeof line);
  line[sizeof line - 1] = '\n';
  for (long long sent = 0; (!bytes || sent < bytes) && !stopping; sent += (long long)sizeof line)
    if (write(1, line, sizeof line) < 0) return 1;
  return wait_for_term();
}

static int eat(long long mib) {
  for (long long i = 0; i < mib; i++) {
    char *p = malloc(1 << 20);
    if (!p) return 3;
    memset(p, 1, 1 << 20);
  }
  printf("ate %lld MiB\n", mib);
  fflush(stdout);
  return wait_for_term();
}

int main(int argc, char **argv) {
  struct sigaction action = {.sa_handler = getenv("IGNORE_TERM") ? SIG_IGN : on_term};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  signal(SIGPIPE, SIG_IGN);
  long long n = argc > 2 ? atoll(argv[2]) : -1;
  if (argc < 2) return serve();
  if (!strcmp(argv[1], "flood")) return flood(n < 0 ? 0 : n);
  if (!strcmp(argv[1], "eat")) return eat(n < 0 ? 64 : n);
  if (!strcmp(argv[1], "crash")) {
    fprintf(stderr, "crashing as asked\n");
    return n < 0 ? 1 : (int)n;
  }
  fprintf(stderr, "httpd: unknown mode %s (crash, flood, eat, or nothing to serve)\n", argv[1]);
  return 64;
}
